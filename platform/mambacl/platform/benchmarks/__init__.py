"""What `mambacl bench` measures: a file of this package for each name, with a function `rows(scope)` that yields `Row`s."""

BENCHMARKS = ("scan", "step", "reading", "streaming", "tasks", "evaluation", "training", "scaling")

ALONE = ("gpu", "statistics")
"""Measured only when named: `all` is for any machine, and for what is timed."""
