"""`mambacl lineup`: learners at equal parameters, state or FLOPs, and what each then costs."""

import dataclasses
from typing import Annotated

import tyro

from mambacl.platform.arguments import parse_experiment
from mambacl.platform.console import json_line
from mambacl.platform.studying.config import Measure


@dataclasses.dataclass(frozen=True)
class Options:
    measure: Measure = "parameters"
    """What the learners are to have in common, within 5 %."""
    budget: float | None = None
    """How much of it; default: as much as the experiment's own learner has."""
    learners: tuple[str, ...] = ()
    """Which learners; default: all that can be resized and fit the task."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    experiment, options = parse_experiment("lineup", Options, arguments)
    from mambacl.platform.studying.costs import matched

    result = matched(experiment, options.measure, options.budget, options.learners)
    if options.as_json:
        json_line(result)
    return 0
