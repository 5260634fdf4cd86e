"""`mambacl bench`: how fast this installation is on this machine, beside what it is meant to reach."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.benchmarks import BENCHMARKS
from mambacl.platform.console import json_line


@dataclasses.dataclass(frozen=True)
class Options:
    benchmark: tyro.conf.Positional[Literal[BENCHMARKS]]  # type: ignore[valid-type]
    """What to measure."""
    quick: bool = False
    """At a tiny size, to see that it works."""
    output: Path | None = None
    """Write the result into this .json file, too."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options = parse_options("bench", Options, arguments)
    from mambacl.platform.benchmarks import report

    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    measured = importlib.import_module(f"mambacl.platform.benchmarks.{options.benchmark}")
    found = report.content(options.benchmark, options.quick, list(measured.rows(options.quick)))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    if options.as_json:
        json_line(found)
    else:
        report.show(found)
    return 0
