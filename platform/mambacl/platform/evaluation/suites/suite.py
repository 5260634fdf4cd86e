"""The contract of evaluation suites: which points a contestant is asked at, and how the answers are shown."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from mambacl.platform.evaluation.point import Point
from mambacl.tasks.config import Config, ConfigError
from mambacl.tasks.randomness import Split
from mambacl.tasks.stream_config import StreamConfig

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
    columns: ClassVar[tuple[str, ...]] = ()
    """What is found beside scores: columns of the rows, which the table of the suite's name has."""
    own_family: ClassVar[bool] = False
    """Whether it asks about the family that a model was trained on, and no other."""
    demand: ClassVar[str] = "a learner"
    """What can be asked this, in words: what `takes` says yes to."""

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


def task_after_task(
    suite: str, family: "Family", split: Split, where: dict[str, Any] | None = None, **changes: Any
) -> Point:
    """The family's own episodes, with streams that are task after task and have no flaws. Raises ConfigError where there is
    more in the stream all the same."""
    point = Point.as_trained(family, split, where, stream=StreamConfig(), **changes)
    if point.of(family).config.streamed > point.tasks:
        raise needs(suite, "streams of the asked tasks alone, without reassigned keys")
    return point


def needs(suite: str, what: str) -> ConfigError:
    """The error of a family that cannot serve a suite."""
    return ConfigError(f"suite: {suite} needs {what}")
