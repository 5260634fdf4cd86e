"""Submission of commands as jobs of a Ray cluster."""
