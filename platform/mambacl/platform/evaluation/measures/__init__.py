"""What can be measured of a contestant at a point; most give a row an episode."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from mambacl.platform.evaluation.measures.associations import associations_of
from mambacl.platform.evaluation.measures.cost import costs_of, machine
from mambacl.platform.evaluation.measures.forgetting import forgetting_of
from mambacl.platform.evaluation.measures.scores import scores_of

if TYPE_CHECKING:
    import pandas as pd

    from mambacl.learners.learner import Learner
    from mambacl.platform.evaluation.cells import Cell
    from mambacl.tasks.family import Family


@dataclasses.dataclass(frozen=True)
class Measure:
    """One way to question a contestant."""

    compute: "Callable[[Cell, Family, Learner], pd.DataFrame]"
    """A row for each episode of a cell, or whatever else is counted, by a family and a learner on their device."""
    version: int
    """Raised when the numbers change, so that old results are not taken for new ones."""
    machine: Callable[[], str] | None = None
    """For times: names the machine of this process, and what else on it they depend on. Results are kept under it, and the
    cells have a node for themselves, one at a time; one cell a learner, whatever its seeds and the episodes."""


MEASURES = {
    "cost": Measure(costs_of, version=1, machine=machine),
    "scores": Measure(scores_of, version=3),
    "forgetting": Measure(forgetting_of, version=3),
    "associations": Measure(associations_of, version=3),
}
