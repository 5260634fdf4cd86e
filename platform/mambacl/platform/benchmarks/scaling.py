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
from mambacl.platform.benchmarks.training import train_alone
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.cells import EPISODES, results
from mambacl.platform.session import session
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import LOG_EVERY
from mambacl.platform.training.ray_worker import use_threads
from mambacl.platform.training.run import train
from mambacl.tasks.config import parse

WORKERS = (1, 2)
TURNS: dict[Scope, int] = {"full": 3, "quick": 1, "tiny": 1}
"""Of one worker, two, and those that share nothing: a machine's own speed changes within minutes."""
POINTS: dict[Scope, int] = {"full": 14, "quick": 10, "tiny": 8}
"""Of a training curve."""
FIRST = 4
"""Points that do not count."""
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
    """Workers of Ray Train that share each batch, beside processes with as many episodes each that share nothing: what the
    machine itself gives a second one. Without their start."""
    tasks, shots, batch = (3, 2, 2) if scope == "tiny" else (20, 5, 16)

    def config(batch: int, workers: int) -> ExperimentConfig:
        content = {
            "name": "bench",
            "task": {"name": "glyphs", "tasks": tasks, "shots": shots},
            "train": {"steps": POINTS[scope] * LOG_EVERY, "batch": batch, "evaluate_every": 10_000,
                      "evaluate_episodes": 1},
            "resources": {"workers": workers, "cpus": 1},
        }  # fmt: skip
        return parse(ExperimentConfig, content)

    pair = max(WORKERS)
    each = batch // pair
    rates: dict[int, list[np.ndarray]] = {workers: [] for workers in WORKERS}
    apart = []
    for turn in range(TURNS[scope]):
        for workers in WORKERS:
            run = folder / f"{turn}-{workers}"
            train(config(batch, workers), run, open_board())
            rates[workers].append(batch * LOG_EVERY / intervals(run))
        runs = [folder / f"{turn}-alone-{number}" for number in range(pair)]
        took = ray.get([alone.remote(config(each, 1), run) for run in runs])
        apart.append(sum(each * LOG_EVERY / seconds for seconds in took))
    one, two = (np.concatenate(rates[workers]) for workers in WORKERS)
    for workers, rate in ((1, one), (2, two)):
        what = f"training on {batch} episodes of {tasks} x {shots}: {_count(workers)}"
        yield Row.of(what, "episodes/s", rate, workers)
    yield Row.of("training: two workers to one", "x", two / one, pair, above=1.8)
    what = "training: two processes that share nothing to one worker"
    yield Row.of(what, "x", np.concatenate(apart) / one, pair)


@ray.remote(num_cpus=1)
def alone(config: ExperimentConfig, run: Path) -> np.ndarray:
    """Train in this process, with one thread; the seconds between points."""
    use_threads(1)
    train_alone(config, run)
    return intervals(run)


def intervals(run: Path) -> np.ndarray:
    """Seconds between the points of a finished run's training curve, without the first: kernels are compiled there, and Ray is
    still starting processes."""
    last = checkpoint.newest(run)
    assert last is not None
    return np.diff([point["time"] for point in last.curve if "train/loss" in point][FIRST:]) / 1000


def evaluation_rows(folder: Path, scope: Scope) -> Iterator[Row]:
    """Cells as they are computed for a suite, with a Ray task on each free CPU; the other CPUs are held. One worker and two
    take turns."""
    count = {"full": 16, "quick": 8, "tiny": 4}[scope]
    tasks, shots = (3, 1) if scope == "tiny" else (20, 5)
    new_cells = cell_maker("mamba", tasks, shots, count)
    seconds: dict[int, list[np.ndarray]] = {workers: [] for workers in WORKERS}
    for _ in range(TURNS[scope]):
        for workers in WORKERS:
            with only(workers):
                [took] = measure([lambda: results(new_cells(), folder, lambda done, all: None)], 1, scope, 0.0).T
            seconds[workers].append(took)
    rates = {workers: count / np.concatenate(took) for workers, took in seconds.items()}
    for workers in WORKERS:
        what = f"cells of {EPISODES} episodes of {tasks} x {shots}: {_count(workers)}"
        yield Row.of(what, "cells/s", rates[workers], workers)
    yield Row.of("evaluation: two workers to one", "x", rates[2] / rates[1], max(WORKERS), above=1.9)


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
