"""How often the intervals of tables hold what they claim to, and how often equal learners are set apart: by simulation.

Learners answer as real ones do: each has its mean, to which a seed, a class, an episode, and a class with a seed each add something of
their own. Nothing is timed here. Shapes: S seeds, E episodes, K tasks, C classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from mambacl.platform.benchmarks.measure import Row, Scope
from mambacl.platform.evaluation.statistics import Interval, Sample, interval, paired_difference, places

REPETITIONS: dict[Scope, int] = {"full": 2000, "quick": 400, "tiny": 5}
SEEDS = (1, 2, 3, 5, 10)
CLASSES = (19, 200)
"""Of meta-test: those of a small set of photographs, and those of a set of characters."""
LEARNERS = (5, 13)
"""Of a table."""
UNLIKE = (0.0, 0.01, 0.02, 0.06)
"""Over seeds, standard deviations of learners some of which have left their plateau and some not."""

COVERS, SPLITS_FALSELY = range(93, 98), range(7)
"""Percents of repetitions that are wanted."""


@dataclasses.dataclass(frozen=True)
class World:
    """Standard deviations of what adds to a learner's mean accuracy."""

    classes: int
    mean: float = 0.6
    of_seeds: tuple[float, ...] = (0.02,)
    """Of one learner after another, again and again."""
    of_classes: float = 0.08
    of_episodes: float = 0.03
    of_classes_and_seeds: float = 0.02
    episodes: int = 256
    tasks: int = 10

    def samples(self, rng: np.random.Generator, means: tuple[float, ...], seeds: int) -> list[Sample]:
        """What learners of these means score on the same episodes."""
        C, E, K = self.classes, self.episodes, self.tasks
        classes_EK = np.argsort(rng.random((E, C)), axis=1)[:, :K]
        shared_EK = rng.normal(0, self.of_classes, C)[classes_EK] + rng.normal(0, self.of_episodes, (E, 1))
        samples = []
        for mean, of_seeds in zip(means, itertools.cycle(self.of_seeds), strict=False):
            of_seeds_S11 = rng.normal(0, of_seeds, (seeds, 1, 1))
            own_SEK = rng.normal(0, self.of_classes_and_seeds, (seeds, C))[:, classes_EK]
            right = rng.random((seeds, E, K)) < mean + of_seeds_S11 + shared_EK + own_SEK
            samples.append(Sample(right.astype(float), classes_EK))
        return samples


def coverage(
    world: World, seeds: int, repetitions: int, found: Callable[[list[Sample]], Interval], truth: float
) -> np.ndarray:
    """Whether the interval holds the truth in each repetition. found: of two learners with the world's mean."""
    held = []
    for number in range(repetitions):
        samples = world.samples(np.random.default_rng([seeds, number]), (world.mean,) * 2, seeds)
        one = found(samples)
        held.append(one.low <= truth <= one.high)
    return np.array(held)


def set_apart(world: World, learners: int, seeds: int, repetitions: int, ahead: float = 0.0) -> np.ndarray:
    """Whether any two learners of a table are set apart, in each repetition; or with `ahead`, whether the first, which is that
    much better than the others, is first for certain."""
    apart = []
    for number in range(repetitions):
        rng = np.random.default_rng([learners, seeds, number])
        means = (world.mean + ahead, *[world.mean] * (learners - 1))
        ranges = places({str(n): s for n, s in enumerate(world.samples(rng, means, seeds))}, higher_is_better=True)
        apart.append(ranges["0"] == (1, 1) if ahead else len(set(ranges.values())) > 1)
    return np.array(apart)


def rows(scope: Scope) -> Iterator[Row]:
    """Coverage of intervals, then of rankings what is set apart falsely and rightly."""
    count = REPETITIONS[scope]
    for classes in CLASSES:
        world = World(classes)
        for seeds in SEEDS:
            # With one seed the interval is that of the trained model, which no seed's part of the world moves.
            asked = world if seeds > 1 else dataclasses.replace(world, of_seeds=(0.0,))
            what = f"{classes} classes, {seeds} seed{'s, the learner' if seeds > 1 else ', the trained model'}: 95 % interval covers"
            yield _share(what, coverage(asked, seeds, count, lambda s: interval(s[0]), world.mean), COVERS)
            what = f"{classes} classes, {seeds} seed{'s' if seeds > 1 else ''}: that of a paired difference covers"
            yield _share(what, coverage(asked, seeds, count, lambda s: paired_difference(*s), 0.0), None)
    world = World(CLASSES[-1])
    for learners in LEARNERS:
        for seeds in SEEDS[1:4]:
            what = f"{learners} equal learners, {seeds} seeds: any two set apart"
            yield _share(what, set_apart(world, learners, seeds, count), SPLITS_FALSELY)
            unlike = dataclasses.replace(world, of_seeds=UNLIKE)
            yield _share(f"{what}, where seeds vary by 0 to 6 points", set_apart(unlike, learners, seeds, count), None)
            for ahead in (0.05, 0.1):
                what = (
                    f"{learners} learners, {seeds} seeds, one {100 * ahead:.0f} points ahead: it is first for certain"
                )
                yield _share(what, set_apart(world, learners, seeds, count, ahead), None)


def _share(what: str, held: np.ndarray, target: range | None) -> Row:
    """A share of repetitions in %, with its 95 % interval. target: whole percents."""
    found = interval(Sample.of(held))
    share = 100 * found.score
    met = None if target is None else round(share) in target
    text = None if target is None else f"{target[0]} to {target[-1]} %"
    return Row(what, "%", share, 100 * found.low, 100 * found.high, len(held), 1, text, met)
