"""Two workers beside one, each with one core: episodes trained on, and cells evaluated."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ray
from ray.util import placement_group, remove_placement_group

from mambacl.platform.benchmarks.evaluation import cell_maker
from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.cells import EPISODES, results
from mambacl.platform.session import session
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import LOG_EVERY
from mambacl.platform.training.run import train
from mambacl.tasks.config import parse

WORKERS = (1, 2)
PATIENCE = 60
"""Seconds for CPUs to become free that were in use a moment before."""


def rows(scope: Scope) -> Iterator[Row]:
    """Of glyphs, with the encoder that is meta-trained."""
    with session(None), tempfile.TemporaryDirectory() as folder:
        if ray.cluster_resources()["CPU"] < max(WORKERS):
            yield Row("scaling", note="needs two CPUs")
            return
        yield from training_rows(Path(folder), scope)
        yield from evaluation_rows(Path(folder), scope)


def training_rows(folder: Path, scope: Scope) -> Iterator[Row]:
    """Workers of Ray Train that share each batch; without their start."""
    tasks, shots, batch = (3, 2, 2) if scope == "tiny" else (20, 5, 16)
    rates = []
    for workers in WORKERS:
        content = {
            "name": "bench",
            "task": {"name": "glyphs", "tasks": tasks, "shots": shots},
            "train": {"steps": 10 * LOG_EVERY if scope == "full" else 4 * LOG_EVERY, "batch": batch,
                      "evaluate_every": 10_000, "evaluate_episodes": 1},
            "resources": {"workers": workers, "cpus": 1},
        }  # fmt: skip
        run = folder / f"{workers}"
        train(parse(ExperimentConfig, content), run, open_board())
        rates.append(batch * LOG_EVERY / intervals(run))
        what = f"training on {batch} episodes of {tasks} x {shots}: {_count(workers)}"
        yield Row.of(what, "episodes/s", rates[-1], workers)
    yield Row.of("training: two workers to one", "x", rates[1] / rates[0], max(WORKERS), above=1.8)


def intervals(run: Path) -> np.ndarray:
    """Seconds between the points of a finished run's training curve, which is from its second ten steps on: the first
    compile kernels."""
    last = checkpoint.newest(run)
    assert last is not None
    return np.diff([point["time"] for point in last.curve if "train/loss" in point]) / 1000


def evaluation_rows(folder: Path, scope: Scope) -> Iterator[Row]:
    """Cells as they are computed for a suite, with a Ray task on each free CPU; the other CPUs are held."""
    count = 8 if scope == "full" else 4
    tasks, shots = (3, 1) if scope == "tiny" else (20, 5)
    new_cells = cell_maker("mamba", tasks, shots, count)
    rates = []
    for workers in WORKERS:
        with only(workers):
            [seconds] = measure([lambda: results(new_cells(), folder, lambda done, all: None)], 1, scope, 20.0).T
        rates.append(count / seconds)
        what = f"cells of {EPISODES} episodes of {tasks} x {shots}: {_count(workers)}"
        yield Row.of(what, "cells/s", rates[-1], workers)
    fewest = min(map(len, rates))
    yield Row.of("evaluation: two workers to one", "x", rates[1][:fewest] / rates[0][:fewest], max(WORKERS), above=1.9)


@contextlib.contextmanager
def only(workers: int) -> Iterator[None]:
    """Leave so many of Ray's CPUs free."""
    others = int(ray.cluster_resources()["CPU"]) - workers
    held = placement_group([{"CPU": 1}] * others) if others else None
    deadline = time.monotonic() + PATIENCE
    try:
        while ray.available_resources().get("CPU", 0) != workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {workers} CPUs were free within {PATIENCE} s")
            time.sleep(0.1)
        yield
    finally:
        if held:
            remove_placement_group(held)


def _count(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"
