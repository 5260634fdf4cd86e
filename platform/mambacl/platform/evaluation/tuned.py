"""References at their best: the few numbers of a closed form are chosen on meta-val, once for a family."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambacl.learners.objective import higher_is_better
from mambacl.platform.evaluation.cells import Cell, cells_of, results
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.tables import parts, sample
from mambacl.tasks.registry import TaskConfig

EPISODES = 64
"""Of meta-val, on which candidates are compared."""


def tuned(contestants: Sequence[Contestant], task: TaskConfig, root: Path, gpus: float = 0) -> list[Contestant]:
    """The contestants, each reference with the candidate of its learner that scores best on meta-val; models as they are."""
    candidates = {
        contestant: [contestant.with_learner(learner) for learner in contestant.learner.candidates(contestant.fixed)]
        for contestant in contestants
        if not contestant.trained
    }
    several = [candidate for own in candidates.values() if len(own) > 1 for candidate in own]
    if not several:
        return list(contestants)
    family = built_family(task)
    point = Point.as_trained(family.fitted("meta_val"), "meta_val")
    cells: list[Cell] = []
    for number, candidate in enumerate(several):
        named = candidate.model_copy(update={"label": str(number)})
        cells += cells_of(named, task, point, 0, EPISODES)
    rows = results(cells, root, lambda done, all: None, gpus)
    sign = 1 if higher_is_better(family.spec.output) else -1
    means = [sign * sample(own).score for own in parts(rows, "contestant").values()]
    scores: dict[Contestant, float] = dict(zip(several, means, strict=True))
    # Of equal candidates the first: what was given, or the default.
    best = {one: max(own, key=lambda candidate: scores.get(candidate, 0.0)) for one, own in candidates.items()}
    return [best.get(contestant, contestant) for contestant in contestants]


def chosen(contestant: Contestant) -> dict[str, Any]:
    """The fields of a reference that were chosen on meta-val, with their values."""
    if contestant.trained:
        return {}
    return {
        field: getattr(contestant.learner, field)
        for field in contestant.learner.choices
        if field not in contestant.fixed
    }
