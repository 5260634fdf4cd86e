"""Evaluation suites: which points contestants are asked at, one file each."""
