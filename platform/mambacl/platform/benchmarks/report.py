"""What a benchmark found, with the machine that it ran on, which figures mean nothing without."""

import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from mambacl.platform.benchmarks.measure import RATIOS, Row, Scope
from mambacl.platform.console import console, table
from mambacl.platform.machine import processor, version

PACKAGES = ("mambacl", "torch", "numpy", "numba")

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
        "versions": {name: version(name) for name in PACKAGES},
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
        "rows": [
            {"benchmark": name, **dataclasses.asdict(row)} | ({"met": None} if scope == "tiny" else {})
            for name, found in rows.items()
            for row in found
        ],
    }


def show(found: dict[str, Any]) -> None:
    """Print what `content` gave, for people: of several benchmarks only ratios, and what else has a target."""
    several = len(found["seconds"]) > 1
    measured = [row for row in found["rows"] if row["median"] is not None]
    shown = [row for row in measured if row["unit"] in RATIOS or row["target"]] if several else measured
    columns = ["what", "median", "quartiles", "threads", "target", ""]
    cells = [((row["benchmark"],) if several else ()) + _cells(row) for row in shown]
    title = f"mambacl bench {found['benchmark']}{TITLES[found['scope']]}"
    table(title, ["benchmark", *columns] if several else columns, cells)
    for row in found["rows"]:
        if row["median"] is None:
            console.print(f"\n{row['what']}: not measured; {row['note']}", soft_wrap=True)
    _print_machine(found["machine"])
    if several:
        times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["seconds"].items())
        console.print(f"{sum(found['seconds'].values()):.0f} s: {times}", soft_wrap=True)


def _print_machine(place: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    names = ", ".join([f"{place['processor']} ({place['cpus']} CPUs, {place['instructions']})", *place["gpus"]])
    console.print(f"\n{names}; Python {place['python']}, {versions}", soft_wrap=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mark = {None: "", True: "met", False: "MISSED"}[row["met"]]
    low, median, high = (_figure(row[name]) for name in ("low", "median", "high"))
    return row["what"], f"{median} {row['unit']}", f"[{low}, {high}]", str(row["threads"]), row["target"] or "", mark


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
