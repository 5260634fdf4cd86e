"""Means with bootstrap intervals over episodes and seeds.

Episodes are the unit, since queries of one episode hang together. Where a learner was trained with several seeds, these are
drawn anew as well, and its score is the interquartile mean over them (Agarwal et al., 2021). All contestants meet the same
drawn episodes, so that differences are paired.

Shapes: S seeds, E episodes, R resamples.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
CHUNK = 1000
"""Resamples at a time: what is in use at once stays small."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % percentile bootstrap interval and its counts."""

    score: float
    low: float
    high: float
    episodes: int
    seeds: int = 1

    @property
    def margins(self) -> tuple[float, float]:
        """How far the interval reaches below and above the mean: the error bar."""
        return self.score - self.low, self.high - self.score

    def __str__(self) -> str:
        return f"{self.score:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def under(self, name: str) -> dict[str, float]:
        """NAME, NAME_low and NAME_high."""
        return {name: self.score, f"{name}_low": self.low, f"{name}_high": self.high}


def interval(scores: np.ndarray) -> Interval:
    """Interval of the mean of scores (E,) or (S, E); the same scores always give the same bits."""
    return _interval(scores, _resampled(scores, 1))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Interval of the mean difference of two contestants, (E,) or (S, E) each, on the same episodes in the same order."""
    if np.shape(ours)[-1] != np.shape(theirs)[-1]:
        raise ValueError(f"pairs need the same episodes, got {np.shape(ours)[-1]} and {np.shape(theirs)[-1]}")
    found = _interval(ours, _resampled(ours, 1) - _resampled(theirs, 2))
    return dataclasses.replace(found, score=_mean(ours) - _mean(theirs))


def places(scores: Mapping[str, np.ndarray], higher_is_better: bool) -> dict[str, tuple[int, int]]:
    """Best and worst place that each contestant may truly have: it stands behind those that are better and before those
    that are worse by more than the 95 % interval of their paired difference. Equal ranges are not distinguishable."""
    sign = 1 if higher_is_better else -1
    drawn = {label: sign * _resampled(values, number) for number, (label, values) in enumerate(scores.items(), 1)}
    lower, upper = 100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2
    found = {}
    for label, own in drawn.items():
        bounds = [np.percentile(own - other, [lower, upper]) for name, other in drawn.items() if name != label]
        better, worse = sum(high < 0 for _, high in bounds), sum(low > 0 for low, _ in bounds)
        found[label] = (1 + int(better), len(drawn) - int(worse))
    return found


def _interval(scores: np.ndarray, resampled: np.ndarray) -> Interval:
    seeds, episodes = np.atleast_2d(scores).shape
    low, high = np.percentile(resampled, [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2])
    return Interval(_mean(scores), float(low), float(high), episodes, seeds)


def _mean(scores: np.ndarray) -> float:
    """Interquartile mean over seeds of the mean over episodes."""
    return float(_interquartile_mean(np.atleast_2d(scores).mean(1)))


def _resampled(scores: np.ndarray, stream: int) -> np.ndarray:
    """Means (R,) over episodes drawn with replacement, alike for all contestants, and seeds drawn by `stream`."""
    scores = np.atleast_2d(scores)
    S, E = scores.shape
    means_RS = np.concatenate([part @ scores.T / E for part in np.split(_counts(E), RESAMPLES // CHUNK)])
    seeds_RS = np.random.default_rng([0, stream]).integers(S, size=(RESAMPLES, S))
    return _interquartile_mean(np.take_along_axis(means_RS, seeds_RS, axis=1))


def _interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    if values.shape[-1] == 1:
        return values[..., 0]
    from scipy.stats import trim_mean  # takes a second, which commands with one seed need not wait

    return trim_mean(values, 0.25, axis=-1)


@functools.lru_cache(maxsize=1)
def _counts(episodes: int) -> np.ndarray:
    """How often each episode is drawn in each resample, (R, E)."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [
            rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=CHUNK).astype(np.int16)
            for _ in range(0, RESAMPLES, CHUNK)
        ]
    )
