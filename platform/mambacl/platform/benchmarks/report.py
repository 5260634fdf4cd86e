"""What a benchmark found, with the machine that it ran on, which figures mean nothing without."""

import dataclasses
import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

from mambacl.platform.benchmarks.measure import Row
from mambacl.platform.console import console, table
from mambacl.platform.machine import processor, version

PACKAGES = ("mambacl", "torch", "numpy", "numba")


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


def content(benchmark: str, quick: bool, rows: Sequence[Row]) -> dict[str, Any]:
    """All of it, as JSON holds it. At a quick run's sizes no target is met or missed."""
    rows = [dataclasses.replace(row, met=None) for row in rows] if quick else rows
    return {
        "benchmark": benchmark,
        "quick": quick,
        "machine": machine(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def show(found: dict[str, Any]) -> None:
    """Print what `content` gave, for people."""
    place, quick = found["machine"], " --quick: sizes that say nothing of speed" if found["quick"] else ""
    table(
        f"mambacl bench {found['benchmark']}{quick}",
        ["what", "median", "quartiles", "threads", "target", ""],
        [_cells(row) for row in found["rows"] if row["median"] is not None],
    )
    for row in found["rows"]:
        if row["median"] is None:
            console.print(f"\n{row['what']}: not measured; {row['note']}", soft_wrap=True)
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    names = ", ".join([f"{place['processor']} ({place['cpus']} CPUs, {place['instructions']})", *place["gpus"]])
    console.print(f"\n{names}; Python {place['python']}, {versions}", soft_wrap=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mark = {None: "", True: "met", False: "MISSED"}[row["met"]]
    low, median, high = (_figure(row[name]) for name in ("low", "median", "high"))
    return row["what"], f"{median} {row['unit']}", f"[{low}, {high}]", str(row["threads"]), row["target"] or "", mark


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
