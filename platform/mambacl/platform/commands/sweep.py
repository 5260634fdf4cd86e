"""`mambacl sweep`: search, register the best model, promote it if it is better, and evaluate the champion."""

import dataclasses
from typing import Annotated

import tyro

from mambacl.platform.arguments import parse_experiment
from mambacl.platform.console import json_line


@dataclasses.dataclass(frozen=True)
class Options:
    address: str | None = None
    """Ray cluster to run on; by default this machine."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    experiment, options = parse_experiment("sweep", Options, arguments)
    from mambacl.platform.sweeping.command import sweep

    result = sweep(experiment, options.address)
    if options.as_json:
        json_line(result)
    return 0
