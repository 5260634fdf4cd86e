"""The contract of evaluation suites: which points a contestant is asked at, and how the answers are shown."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from mambacl.platform.evaluation.point import Point
from mambacl.tasks.config import Config, ConfigError
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.learners.learner import Learner
    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Suite(Config, ABC):
    """A suite with its parameters. Its first point is the family's own episodes, if it asks for them at all."""

    measure: ClassVar[str] = "scores"
    """What is measured at each point: a name of MEASURES."""
    axes: ClassVar[tuple[str, ...]] = ()
    """What tells points apart: names in their `where`."""

    def takes(self, learner: "Learner") -> bool:
        """Whether a learner can be asked this."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """What the measure must know beside the point."""
        return {}

    @abstractmethod
    def points(self, family: "Family", split: Split) -> list[Point]:
        """The points, as far as the family goes. Raises ConfigError, with what is needed, where it cannot serve the suite."""

    @abstractmethod
    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        """Pictures by name. rows: those of all cells."""

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        """Tables by name."""
        from mambacl.platform.evaluation.tables import score_table

        return {"scores": score_table(rows, self.axes, about.higher_is_better)}


def needs(suite: str, what: str) -> ConfigError:
    """The error of a family that cannot serve a suite."""
    return ConfigError(f"suite: {suite} needs {what}")
