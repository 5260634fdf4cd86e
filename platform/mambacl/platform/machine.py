"""The machine that a process runs on, in words and numbers."""

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from mambacl.learners.scan import team


def device() -> torch.device:
    """The GPU that this process may use, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Meanwhile this thread, and those that compute for it, take numbers nearer to zero than 1e-38 for zero.

    A state that fades, as on a padded stream, is full of them, and some processors take ten times as long for each. What trains,
    evaluates or serves does so within this, so that all get the same bits.
    """
    before = bool(torch.tensor(1e-40) * 1.0 == 0)
    _flush_subnormals(True)
    try:
        yield
    finally:
        _flush_subnormals(before)


def _flush_subnormals(on: bool) -> None:
    def set_own() -> None:
        torch.set_flush_denormal(on)

    team.run(set_own, torch.get_num_threads())


def device_name() -> str:
    """Name of the processor, with that of the GPU before it if this process uses one."""
    return f"{torch.cuda.get_device_name()} with {processor()}" if device().type == "cuda" else processor()


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory() -> int:
    """Bytes that the device has; of the CPU as many as the container of this process allows."""
    if device().type == "cuda":
        return torch.cuda.get_device_properties().total_memory
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return total if allowed == "max" else min(total, int(allowed))


def version(package: str) -> str:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
