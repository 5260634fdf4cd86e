"""`mambacl doctor`: what this installation has, and which kernels are live and why."""

import dataclasses
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.console import json_line, table

PACKAGES = (
    "mambacl",
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "optuna",
    "numba",
    "triton",
    "mamba-ssm",
    "causal-conv1d",
    "flash-linear-attention",
)


@dataclasses.dataclass(frozen=True)
class Options:
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options = parse_options("doctor", Options, arguments)
    found = findings()
    if options.as_json:
        json_line({name: {"finding": finding, "ok": ok} for name, finding, ok in found})
    else:
        table(
            "mambacl doctor",
            ["what", "finding", ""],
            [(name, finding, "" if ok else "PROBLEM") for name, finding, ok in found],
        )
    return 0 if all(ok for *_, ok in found) else 1


def findings() -> list[tuple[str, str, bool]]:
    """(what, finding, whether it is fine)."""
    import torch

    from mambacl.learners.scan import SELECTIVE
    from mambacl.learners.scan.matrix import MATRIX
    from mambacl.platform.machine import processor, version

    rows: list[tuple[str, str, bool]] = [("python", platform.python_version(), True)]
    rows += [(name, version(name), True) for name in PACKAGES]
    rows.append(
        ("CPUs", f"{len(os.sched_getaffinity(0))} of {processor()}, torch uses {torch.get_num_threads()} threads", True)
    )
    devices = ["cpu"]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        rows.append((f"GPU {number}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", True))
        devices = ["cpu", "cuda"]
    for device in devices:
        for recurrence in (SELECTIVE, MATRIX):
            kernel, reason = recurrence.describe(torch.device(device))
            rows.append((f"{recurrence.name} on {device}", f"{kernel}: {reason}", True))
    rows.append(_scan_check())
    rows.append(_writable("results", Path(tempfile.gettempdir())))
    return rows


def _scan_check() -> tuple[str, str, bool]:
    """The live kernel against the plain one."""
    import torch

    from mambacl.learners.scan import selective_scan

    torch.manual_seed(0)
    u, delta = torch.randn(2, 9, 8), torch.rand(2, 9, 8)
    A, B, C, D = -torch.rand(8, 4), torch.randn(2, 9, 4), torch.randn(2, 9, 4), torch.randn(8)
    (fast, _), (slow, _) = (
        selective_scan(u, delta, A, B, C, D, None, kernel=kernel) for kernel in ("auto", "reference")
    )
    assert fast is not None
    assert slow is not None
    error = float((fast - slow).abs().max() / slow.abs().max())
    return "scan check", f"differs from the plain scan by {error:.1e}", error < 1e-4


def _writable(what: str, folder: Path) -> tuple[str, str, bool]:
    free: Any = shutil.disk_usage(folder).free
    return "disk", f"{free / 2**30:.0f} GiB free in {folder}", free > 2**30
