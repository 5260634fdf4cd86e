"""What tables and figures of an evaluation must know beside its rows."""

import dataclasses

from mambacl.learners.objective import Codes, higher_is_better
from mambacl.platform.evaluation.contestant import built_family
from mambacl.tasks.registry import TaskConfig

METRICS = {"classification": "accuracy", "regression": "mean squared error", "angle": "1 - cos of the error"}
"""What a score is, by what is answered."""


@dataclasses.dataclass(frozen=True)
class About:
    """The family that was asked."""

    title: str
    metric: str
    """What a score is."""
    higher_is_better: bool
    tasks: int
    """Of the episodes that the models were trained on."""
    shots: int
    codes: Codes = "all"
    """Label codes that compete in the headline."""

    @property
    def chance(self) -> float | None:
        """Accuracy of a guess among the stream's classes; None where values are answered."""
        return 1 / self.tasks if self.higher_is_better else None

    @classmethod
    def of(cls, task: TaskConfig, codes: Codes = "all") -> "About":
        """The family of a config."""
        output = built_family(task).spec.output
        return cls(
            title=f"{task.name}, meta-test, {task.tasks} tasks x {task.shots} shots",
            metric=METRICS[output],
            higher_is_better=higher_is_better(output),
            tasks=task.tasks,
            shots=task.shots,
            codes=codes,
        )
