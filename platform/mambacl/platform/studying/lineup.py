"""Line-ups: learners resized until they cost the same, so that a comparison is one of kinds and not of sizes."""

from collections.abc import Callable, Iterable
from typing import Any

from mambacl.learners.base_config import LearnerBase
from mambacl.learners.learner import Learner
from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.cost import count_flops, count_parameters
from mambacl.platform.studying.config import Measure
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.family import Family
from mambacl.tasks.registry import build as build_family

TOLERANCE = 0.05
"""Largest relative distance from the budget."""

CLOSE = 0.02
"""A distance at which no finer size is tried: odd widths compute slowly."""

GRAINS = (8, 4, 2, 1)
"""Multiples that sizes are kept to, the first that comes close."""

LARGEST = 64
"""How many times its size by default a learner may grow."""


def fit(config: ExperimentConfig, measure: Measure, budget: float, family: Family | None = None) -> ExperimentConfig:
    """The experiment with its learner at the size whose measure on one episode is next to the budget.

    family: on which it is measured, by default the experiment's own. Parameters and FLOPs are met by the learner's `scale`
    fields, state floats by its `memory` fields; their proportions stay. Raises ConfigError where the learner has no such size, or
    none within TOLERANCE.
    """
    learner = config.learner
    fields = learner.memory if measure == "state_floats" else learner.scale
    if not fields:
        raise ConfigError(f"learner.name: {learner.name!r} has no size that changes its {measure}")
    count = _counter(config, measure, family or build_family(config.task))
    best, distance = learner, float("inf")
    for grain in GRAINS:
        for candidate in _bracket(learner, fields, grain, count, budget):
            if (off := abs(count(candidate) / budget - 1)) < distance:
                best, distance = candidate, off
        if distance <= CLOSE:
            break
    if distance > TOLERANCE:
        raise ConfigError(
            f"learner: {learner.name} comes no nearer to {measure} = {budget:,.0f} than {count(best):,.0f}, "
            f"with {_sizes(best, fields)}"
        )
    return config.model_copy(update={"learner": best})


def _counter(config: ExperimentConfig, measure: Measure, family: Family) -> Callable[[LearnerBase], int]:
    """What the measure of a learner is on an episode of the experiment; remembered, since sizes are asked for again."""
    episode = family.episodes("meta_train", [0]) if measure == "episode_flops" else None
    known: dict[str, int] = {}

    def of(learner: Learner) -> int:
        if episode is not None:
            return sum(count_flops(learner, episode))
        if measure == "state_floats":
            return learner.state_floats(config.task.examples)
        total, _, active = count_parameters(learner)
        return total if measure == "parameters" else active

    def count(learner: LearnerBase) -> int:
        name = learner.model_dump_json()
        if name not in known:
            known[name] = of(build_learner(learner, family.spec))
        return known[name]

    return count


def _bracket(
    learner: LearnerBase, fields: Iterable[str], grain: int, count: Callable[[LearnerBase], int], budget: float
) -> list[LearnerBase]:
    """The neighbouring sizes below and above the budget, of those that are multiples of the grain; none where the learner
    has no such sizes."""
    try:
        low, high = 0.0, 1.0
        while count(_resized(learner, fields, grain, high)) < budget and high < LARGEST:
            low, high = high, 2 * high
        below, above = (_resized(learner, fields, grain, factor) for factor in (low, high))
        while below != above:
            factor = (low + high) / 2
            middle = _resized(learner, fields, grain, factor)
            if middle in (below, above) and high - low < 1e-4:
                break
            if count(middle) < budget:
                low, below = factor, middle
            else:
                high, above = factor, middle
        return [below, above]
    except ConfigError:  # such as heads that do not divide these widths
        return []


def _resized(learner: LearnerBase, fields: Iterable[str], grain: int, factor: float) -> LearnerBase:
    sizes: dict[str, Any] = {}
    for field in fields:
        size = getattr(learner, field)
        # Channels are normalised in groups of four, whatever the grain.
        sizes[field] = (
            tuple(_rounded(part * factor, 4) for part in size)
            if isinstance(size, tuple)
            else _rounded(size * factor, grain)
        )
    return parse(type(learner), learner.model_dump() | sizes, "learner")


def _rounded(size: float, grain: int) -> int:
    return max(grain, grain * round(size / grain))


def _sizes(learner: LearnerBase, fields: Iterable[str]) -> str:
    return ", ".join(f"{field} = {getattr(learner, field)}" for field in fields)
