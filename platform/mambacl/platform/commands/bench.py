"""`mambacl bench`: how fast this installation is on this machine, beside what it is meant to reach."""

import concurrent.futures
import dataclasses
import importlib
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.benchmarks import ALONE, BENCHMARKS
from mambacl.platform.console import json_line
from mambacl.tasks.config import ConfigError

if TYPE_CHECKING:
    from mambacl.platform.benchmarks.measure import Row, Scope

ALL = ("all", *BENCHMARKS, *ALONE)
FAILED = "it failed"
TABLES = "<!-- tables -->\n"
"""The line of a document behind which tables stand."""


@dataclasses.dataclass(frozen=True)
class Options:
    benchmark: tyro.conf.Positional[Literal[ALL]]  # type: ignore[valid-type]
    """What to measure."""
    quick: bool = False
    """Only what has a target, at its true size with few repetitions: all benchmarks in some minutes."""
    tiny: bool = False
    """At sizes that say nothing of speed, to see that it works."""
    output: tuple[Path, ...] = ()
    """Write the result into these files, too: all of it as .json, its tables as .md, where they follow what stands there up to
    the line <!-- tables -->."""
    against: Path | None = None
    """Compare the ratios with those that --output wrote on such a processor, into this file or one of this folder: a line for each
    that has become worse by more than the tolerance twice, in processes of their own, and exit code 1."""
    tolerance: float = 0.2
    """How much worse a ratio may be: 0.2 is a fifth."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options = parse_options("bench", Options, arguments)
    if options.quick and options.tiny:
        raise ConfigError("bench: --quick and --tiny exclude each other")
    for file in options.output:
        if file.suffix not in (".json", ".md"):
            raise ConfigError(f"output: {file} is neither a .json nor a .md file")
    scope = "quick" if options.quick else "tiny" if options.tiny else "full"
    from mambacl.platform.benchmarks import regression, report

    stored = None if options.against is None else regression.read(options.against, scope)
    for file in options.output:
        file.parent.mkdir(parents=True, exist_ok=True)
    names = BENCHMARKS if options.benchmark == "all" else (options.benchmark,)
    rows, seconds = measured_apart(names, scope)
    found = report.content(options.benchmark, scope, rows, seconds)
    for file in options.output:
        if file.suffix == ".json":
            file.write_text(json.dumps(found, indent=1) + "\n")
        else:
            before, mark, _ = file.read_text().partition(TABLES) if file.exists() else ("", "", "")
            file.write_text((f"{before}{mark}\n" if mark else "") + report.markdown(found))
    if options.as_json:
        json_line(found)
    else:
        report.show(found)
    failed = {row["benchmark"]: row["note"] for row in found["rows"] if row["note"].startswith(FAILED)}
    fallen = regression.fallen(found, stored, options.tolerance) if stored else {}
    doubtful = dict.fromkeys(benchmark for benchmark, _ in fallen if benchmark not in failed)
    if stored and doubtful:
        # Others' loops of small operations take once or twice their time, from process to process: one alone says nothing.
        print("mambacl: once more, since ratios have fallen:", *fallen.values(), sep="\n", file=sys.stderr)
        second = report.content(options.benchmark, scope, *measured_apart(tuple(doubtful), scope))
        again = regression.fallen(second, stored, options.tolerance)
        fallen = {
            place: again.get(place, line) for place, line in fallen.items() if place in again or place[0] in failed
        }
    lines = [*fallen.values(), *(f"{benchmark}: {note}" for benchmark, note in failed.items())]
    for line in lines:
        print(f"mambacl: {line}", file=sys.stderr)
    return 1 if lines else 0


def measured_apart(names: tuple[str, ...], scope: "Scope") -> "tuple[dict[str, list[Row]], dict[str, float]]":
    """As `measured`, in a process that has the package's switches from its start: malloc reads its own only then."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return apart.submit(measured, names, scope).result()


def measured(names: tuple[str, ...], scope: "Scope") -> "tuple[dict[str, list[Row]], dict[str, float]]":
    """The rows of each benchmark, and the seconds that it took. Each row goes to standard error as soon as it is there.

    One of several that fails becomes a row that says so: minutes of measurements are not thrown away for it.
    """
    from mambacl.platform.benchmarks.measure import Row
    from mambacl.platform.benchmarks.report import line

    rows, seconds = {name: [] for name in names}, {}
    for name in names:
        began = time.monotonic()
        try:
            for row in importlib.import_module(f"mambacl.platform.benchmarks.{name}").rows(scope):
                rows[name].append(row)
                print(f"{name}: {line(row, scope)}", file=sys.stderr, flush=True)
        except Exception as error:
            if len(names) == 1:
                raise
            rows[name].append(Row(name, note=f"{FAILED}: {type(error).__name__}: {error}".splitlines()[0]))
        seconds[name] = round(time.monotonic() - began, 1)
    return rows, seconds
