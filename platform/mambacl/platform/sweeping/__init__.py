"""Sweeps: Ray Tune, Optuna, registration and promotion."""
