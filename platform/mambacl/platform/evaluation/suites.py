"""Evaluation suites: which episode sizes a contestant is asked, and how many episodes of each."""

import dataclasses
from typing import Literal

from mambacl.tasks.config import ConfigError
from mambacl.tasks.family import Family
from mambacl.tasks.randomness import Split

SuiteName = Literal["standard", "length"]

TASK_LENGTHS = (5, 10, 20, 30, 50, 75, 100)
SHOT_LENGTHS = (1, 2, 5, 10, 15, 20, 30, 50)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One episode size of a suite."""

    tasks: int
    shots: int
    queries: int


def settings(suite: SuiteName, family: Family, split: Split) -> list[Setting]:
    """The sizes of a suite, as far as the split and the label codes allow.

    standard: the size that the family has. length: tasks at that number of shots, and shots at that number of tasks.
    """
    config, limits = family.config, family.limits(split)
    trained = Setting(config.tasks, config.shots, config.queries)
    if suite == "standard":
        return [trained]
    most_tasks, most_shots = limits["tasks"], limits["images"] - config.queries
    tasks = [Setting(k, config.shots, config.queries) for k in TASK_LENGTHS if k <= most_tasks]
    shots = [
        Setting(config.tasks, s, config.queries)
        for s in SHOT_LENGTHS
        if family.resized(shots=s).config.shot_range[1] <= most_shots
    ]
    chosen = sorted({trained, *tasks, *shots}, key=lambda s: (s.tasks, s.shots))
    if len(chosen) < 2:
        raise ConfigError(
            f"suite: length needs room to vary; {split} has {limits['tasks']} tasks within {config.codes} label codes "
            f"and {limits['images']} images a class"
        )
    return chosen
