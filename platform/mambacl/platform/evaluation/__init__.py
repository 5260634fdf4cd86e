"""Evaluation: contestants on cells of episodes, statistics, figures."""
