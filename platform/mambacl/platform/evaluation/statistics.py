"""Means with bootstrap intervals over episodes; episodes are the unit, since queries of one episode hang together."""

import dataclasses

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % percentile bootstrap interval and its count."""

    score: float
    low: float
    high: float
    episodes: int

    def __str__(self) -> str:
        return f"{self.score:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(values: np.ndarray) -> Interval:
    """Interval of the mean of values (episodes,); the same values always give the same bits."""
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean, mean, mean, len(values))
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(mean, float(result.low), float(result.high), len(values))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Interval of the mean difference of two contestants on the same episodes, in the same order."""
    return interval(ours - theirs)
