"""Means with 95 % intervals, differences, and places: over the seeds of a learner, the classes asked about, and episodes.

Scores vary with the seed that a learner was trained with, with the classes that it is asked about, and with the episode. What
all contestants share, classes and episodes, is crossed: every class comes in many episodes. So the variance of a mean is

    V = V_seeds + V_items,    V_items = V_classes + V_episodes - V_both

each V the sum of squared residuals that fall into one seed, class, episode, or class of an episode (Cameron, Gelbach and Miller, 2011,
"Robust Inference with Multiway Clustering"). The interval is t sqrt(V), with t the mean of Student's for the degrees of freedom of
each part, weighted by the parts (Cochran and Cox, 1957, "Experimental Designs"): right where a few seeds decide and where they do
not. With one seed there is no V_seeds, and the interval is that of the trained model, not of its learner.

Shapes: S seeds, E episodes, K tasks of an episode, C classes.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
TINY = 1e-12
"""Smallest chance that is told apart from none."""
ROBUST = 4
"""Seeds from which on their interquartile mean (Agarwal et al., 2021) leaves any out."""
INTERQUARTILE_VARIANCE = 1.2
"""By how much the variance of an interquartile mean of normal values exceeds that of their mean, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """What one contestant scored at one point."""

    values: np.ndarray
    """(S, E, K), or (S, E, 1) for what is known of whole episodes only."""
    classes: np.ndarray | None = None
    """(E, K) the class of each task, or None where tasks are no classes or are not known apart."""

    @classmethod
    def of(cls, scores: np.ndarray | Sequence[float]) -> Self:
        """Scores of episodes (E,) or (S, E)."""
        return cls(np.atleast_2d(np.asarray(scores, float))[..., None])

    @property
    def by_seed(self) -> np.ndarray:
        """(S,)."""
        return self.values.mean((1, 2))

    @property
    def score(self) -> float:
        """Mean over episodes and seeds; from four seeds on their interquartile mean."""
        return middle(self.by_seed)

    @property
    def classes_asked(self) -> int:
        """C; 0 where it is not known."""
        return 0 if self.classes is None else int((np.bincount(self.classes.ravel()) > 0).sum())

    @functools.cached_property
    def interaction(self) -> float:
        """Of the variance of the mean over classes and episodes, what is due to items that do well with one seed and not with
        another."""
        S = len(self.values)
        if S == 1:
            return 0.0
        own = self.values - self.values.mean((1, 2), keepdims=True)
        own = own - own.mean(0)
        return sum(_items(one, self.classes).variance for one in own) / (S * (S - 1))


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval and its counts."""

    score: float
    low: float
    high: float
    episodes: int
    seeds: int = 1
    classes: int = 0
    """That were asked about; 0 where the interval is not over classes."""

    @property
    def margins(self) -> tuple[float, float]:
        """How far the interval reaches below and above the mean: the error bar."""
        return self.score - self.low, self.high - self.score

    @property
    def over(self) -> str:
        """What it is an interval over, in words."""
        return over(self.seeds, self.classes, self.episodes)

    def __str__(self) -> str:
        return f"{self.score:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def under(self, name: str) -> dict[str, float]:
        """NAME, NAME_low and NAME_high."""
        return {name: self.score, f"{name}_low": self.low, f"{name}_high": self.high}


def over(seeds: int, classes: int, episodes: int) -> str:
    """What an interval is over, in words: `3 seeds, 19 classes and 512 episodes`."""
    counts = [f"{classes:,} classes"] * (classes > 0) + [f"{episodes:,} episodes"]
    if seeds == 1:
        return f"{' and '.join(counts)}, of this trained model"
    return ", ".join([f"{seeds} seeds", *counts[:-1]]) + f" and {counts[-1]}"


@dataclasses.dataclass(frozen=True)
class Part:
    """An independent part of the variance of a mean, with its degrees of freedom."""

    variance: float
    freedom: float


def together(parts: Sequence[Part]) -> Part:
    """The sum of parts that are alike, with the degrees of freedom that it has (Welch, 1947)."""
    variance = sum(part.variance for part in parts)
    spread = sum(part.variance**2 / part.freedom for part in parts)
    return Part(variance, variance**2 / spread if spread > 0 else 1.0)


def interval(sample: Sample) -> Interval:
    """Interval of the mean of a sample; within 0 to 1, or at least 0, where all values are."""
    found = _interval(sample.score, [seeds_part(sample), items_part(sample)], sample)
    return _clipped(found, 0.0 if sample.values.min() >= 0 else -math.inf, 1.0 if _are_shares(sample) else math.inf)


def paired_difference(ours: Sample, theirs: Sample) -> Interval:
    """Interval of the mean difference of two contestants on the same episodes in the same order, whose seeds are their own;
    within -1 to 1 where all values are within 0 to 1."""
    parts = [together([seeds_part(ours), seeds_part(theirs)]), difference_part(ours, theirs)]
    return _between(_interval(ours.score - theirs.score, parts, ours), ours, theirs)


def gap(known: Sample, new: Sample) -> Interval:
    """Interval of the mean difference of one contestant, with the same seeds, on other episodes and classes; within -1 to 1 where
    all values are within 0 to 1."""
    differences = Sample.of(known.by_seed[:, None] - new.by_seed[:, None])
    parts = [seeds_part(differences), items_part(known), items_part(new)]
    return _between(_interval(differences.score, parts, new), known, new)


def _between(found: Interval, one: Sample, other: Sample) -> Interval:
    return _clipped(found, -1.0, 1.0) if _are_shares(one) and _are_shares(other) else found


def _clipped(found: Interval, low: float, high: float) -> Interval:
    """The interval within what its score can be."""
    return dataclasses.replace(found, low=max(low, found.low), high=min(high, found.high))


def _are_shares(sample: Sample) -> bool:
    return bool(sample.values.min() >= 0 and sample.values.max() <= 1)


def places(samples: Mapping[str, Sample], higher_is_better: bool) -> dict[str, tuple[int, int]]:
    """Best and worst place that each contestant may truly have: it stands behind those that are better and before those
    that are worse. Equal ranges are not distinguishable.

    Differences of all pairs are tested together (Holm, 1979), so that of equal contestants any two are set apart in at most 5 % of
    tables. The variance over seeds is that of all learners with several seeds together, or a pair's own where that is larger.
    """
    sign = 1 if higher_is_better else -1
    several = [sample for sample in samples.values() if len(sample.values) > 1]
    freedom = sum(len(sample.values) - 1 for sample in several)
    common = sum(float(sample.by_seed.var(ddof=1)) * (len(sample.values) - 1) for sample in several) / max(1, freedom)
    tested, ahead = [], set()
    for one, other in itertools.combinations(samples, 2):
        ours, theirs = samples[one], samples[other]
        difference = sign * (ours.score - theirs.score)
        own = sum(seeds_part(sample).variance for sample in (ours, theirs))
        pooled = sum(_of_mean(common, len(sample.values)) for sample in (ours, theirs))
        parts = [Part(max(own, pooled), max(1, freedom)), difference_part(ours, theirs)]
        tested.append((p_value(difference, parts), (one, other) if difference > 0 else (other, one)))
    for rank, (p, pair) in enumerate(sorted(tested)):
        if p > (1 - CONFIDENCE) / (len(tested) - rank):
            break
        ahead.add(pair)
    better = {label: sum((other, label) in ahead for other in samples) for label in samples}
    worse = {label: sum((label, other) in ahead for other in samples) for label in samples}
    return {label: (1 + better[label], len(samples) - worse[label]) for label in samples}


def middle(values: np.ndarray) -> float:
    """Mean of a few values; from four on their interquartile mean."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())


def seeds_part(sample: Sample) -> Part:
    """Of the mean over seeds; none where there is one seed."""
    S = len(sample.values)
    return Part(_of_mean(float(sample.by_seed.var(ddof=1)), S), S - 1) if S > 1 else Part(0.0, 1)


def _of_mean(variance: float, seeds: int) -> float:
    """Of the mean, or interquartile mean, of so many seeds that vary by this much; with one there is none to know."""
    return 0.0 if seeds == 1 else variance / seeds * (INTERQUARTILE_VARIANCE if seeds >= ROBUST else 1.0)


def items_part(sample: Sample) -> Part:
    """Of the mean over classes and episodes, which all seeds share. What of it varies with the seed is in `seeds_part`."""
    part = _items(sample.values.mean(0), sample.classes)
    return Part(max(0.0, part.variance - sample.interaction), part.freedom)


def difference_part(ours: Sample, theirs: Sample) -> Part:
    """`items_part` of the difference of two contestants on the same items. Raises ValueError where they are others."""
    if ours.values.shape[1:] != theirs.values.shape[1:]:
        raise ValueError(f"pairs need the same episodes, got {ours.values.shape[1]} and {theirs.values.shape[1]}")
    part = _items(ours.values.mean(0) - theirs.values.mean(0), ours.classes)
    return Part(max(0.0, part.variance - ours.interaction - theirs.interaction), part.freedom)


def _items(values_EK: np.ndarray, classes: np.ndarray | None) -> Part:
    """Of a mean over crossed classes and episodes."""
    residual_EK = values_EK - values_EK.mean()
    count = residual_EK.size
    parts, both = [_clustered(residual_EK.sum(1), count)], 0.0
    if classes is not None:
        asked = np.bincount(classes.ravel()) > 0
        parts.append(_clustered(np.bincount(classes.ravel(), residual_EK.ravel())[asked], count))
        both = float(residual_EK.ravel() @ residual_EK.ravel()) / count**2
    whole = together(parts)
    return Part(max(whole.variance - both, *(part.variance for part in parts)), whole.freedom)


def p_value(difference: float, parts: Sequence[Part]) -> float:
    """Twice the smallest chance at which an interval of these parts leaves out zero."""
    from scipy.optimize import root_scalar  # takes a while, which commands that rank nothing need not wait

    if difference == 0:
        return 1.0
    if half_width(parts, TINY) < abs(difference):
        return TINY
    found = root_scalar(lambda log: half_width(parts, math.exp(log)) - abs(difference), bracket=(math.log(TINY), 0.0))
    return math.exp(found.root)


def half_width(parts: Sequence[Part], chance: float = 1 - CONFIDENCE) -> float:
    """Of an interval that misses with this chance, from independent parts of the variance."""
    variance = sum(part.variance for part in parts)
    weighted = sum(part.variance * -stdtrit(part.freedom, chance / 2) for part in parts)
    return float(weighted / math.sqrt(variance)) if variance > 0 else 0.0


def _interval(score: float, parts: Sequence[Part], sample: Sample) -> Interval:
    width = half_width(parts)
    S, E = sample.values.shape[:2]
    return Interval(score, score - width, score + width, E, S, sample.classes_asked)


def _clustered(sums: np.ndarray, count: int) -> Part:
    """Variance of a mean of `count` residuals from their sums over independent clusters."""
    clusters = len(sums)
    if clusters == 1:
        return Part(0.0, 1)
    return Part(float(sums @ sums) / count**2 * clusters / (clusters - 1), clusters - 1)
