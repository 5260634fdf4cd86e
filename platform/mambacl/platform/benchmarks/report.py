"""What a benchmark found, with the machine that it ran on, which figures mean nothing without."""

import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from mambacl.platform.benchmarks.measure import RATIOS, Row, Scope
from mambacl.platform.machine import processor, version

PACKAGES = ("mambacl", "torch", "numpy", "numba")
GPU_PACKAGES = ("triton", "mamba-ssm", "causal-conv1d", "flash-linear-attention")

COLUMNS = ("what", "median", "quartiles", "threads", "target", "")

TITLES: dict[Scope, str] = {
    "full": "",
    "quick": " --quick: what has a target, few repetitions",
    "tiny": " --tiny: sizes that say nothing of speed",
}


def machine() -> dict[str, Any]:
    """Processor, GPUs, and versions."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": {name: version(name) for name in PACKAGES + (GPU_PACKAGES if torch.cuda.is_available() else ())},
    }


def content(
    asked: str, scope: Scope, rows: Mapping[str, Iterable[Row]], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """All of it, as JSON holds it. asked: on the command line; rows, seconds: of each benchmark that this means."""
    return {
        "benchmark": asked,
        "scope": scope,
        "machine": machine(),
        "seconds": dict(seconds),
        "rows": [{"benchmark": name, **_dict(row, scope)} for name, found in rows.items() for row in found],
    }


def show(found: dict[str, Any]) -> None:
    """Print what `content` gave, for people: of several benchmarks only ratios, and what else has a target."""
    from mambacl.platform.console import console, table  # needs rich, which `line` does not

    several = len(found["seconds"]) > 1
    measured = [row for row in found["rows"] if row["median"] is not None]
    shown = [row for row in measured if row["unit"] in RATIOS or row["target"]] if several else measured
    cells = [((row["benchmark"],) if several else ()) + _cells(row) for row in shown]
    title = f"mambacl bench {found['benchmark']}{TITLES[found['scope']]}"
    table(title, ["benchmark", *COLUMNS] if several else COLUMNS, cells)
    for text in _remarks(found):
        console.print(f"\n{text}", soft_wrap=True)


def markdown(found: dict[str, Any]) -> str:
    """All of what `content` gave, a table for each benchmark."""
    lines = []
    for name in found["seconds"]:
        rows = [row for row in found["rows"] if row["benchmark"] == name and row["median"] is not None]
        cells = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, rows)]
        lines += [f"### {name}", "", *(f"| {' | '.join(row)} |" for row in cells), ""]
    return "\n".join([*lines, *(f"{text}\n" for text in _remarks(found))])


def _remarks(found: dict[str, Any]) -> list[str]:
    """What could not be measured, on which machine it was, and how long it took."""
    missing = [f"{row['what']}: not measured; {row['note']}" for row in found["rows"] if row["median"] is None]
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["seconds"].items())
    return [*missing, _machine_line(found["machine"]), f"{sum(found['seconds'].values()):.0f} s: {times}"]


def line(row: Row, scope: Scope) -> str:
    """A row as plain text."""
    if row.median is None:
        return f"{row.what}: not measured; {row.note}"
    what, median, quartiles, _, target, mark = _cells(_dict(row, scope))
    return f"{what}: {median} {quartiles} {target} {mark}".rstrip()


def _dict(row: Row, scope: Scope) -> dict[str, Any]:
    return dataclasses.asdict(row) | ({"met": None} if scope == "tiny" else {})


def _machine_line(place: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    names = ", ".join([f"{place['processor']} ({place['cpus']} CPUs, {place['instructions']})", *place["gpus"]])
    return f"{names}; Python {place['python']}, {versions}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mark = {None: "", True: "met", False: "MISSED"}[row["met"]]
    low, median, high = (_figure(row[name]) for name in ("low", "median", "high"))
    return row["what"], f"{median} {row['unit']}", f"[{low}, {high}]", str(row["threads"]), row["target"] or "", mark


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
