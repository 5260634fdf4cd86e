"""Evaluation: cells as they are computed for a suite, beside the bare forward passes that are in them."""

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
import torch

from mambacl.learners.learner import Learner
from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.platform.evaluation.cells import EPISODES, Cell, cells_of, results
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner
from mambacl.platform.evaluation.point import Point
from mambacl.platform.session import session
from mambacl.tasks.config import parse
from mambacl.tasks.episode import Episode
from mambacl.tasks.registry import TaskConfig

LEARNERS = ("mamba", "attention")


def rows(scope: Scope) -> Iterator[Row]:
    """Of learners with the weights that they begin with, which take as long as any. On all cores, a Ray task on each."""
    with session(None), tempfile.TemporaryDirectory() as folder:
        for name in LEARNERS:
            yield from learner_rows(name, Path(folder), scope)


def learner_rows(name: str, folder: Path, scope: Scope) -> Iterator[Row]:
    """The two rates, and their ratio."""
    tasks, shots, each = {"full": (20, 5, 4), "quick": (20, 5, 2), "tiny": (3, 1, 1)}[scope]
    workers = int(ray.cluster_resources()["CPU"])
    count = each * workers
    new_cells = cell_maker(name, tasks, shots, count)
    known = new_cells()[0]

    def passes() -> None:
        ray.get([forward.remote(known) for _ in range(count)])

    def cells() -> None:
        results(new_cells(), folder, lambda done, all: None)

    seconds = measure([passes, cells], 1, scope, seconds=20.0)
    size = f"{name}, {EPISODES} episodes of {tasks} x ({shots} + {shots}) a cell"
    yield Row.of(f"{size}: forward passes alone", "cells/s", count / seconds[:, 0], workers)
    yield Row.of(f"{size}: evaluated and kept", "cells/s", count / seconds[:, 1], workers)
    share = 100 * seconds[:, 0] / seconds[:, 1]
    yield Row.of(f"{name}: share of the rate of forward passes", "%", share, workers, above=90)


def cell_maker(name: str, tasks: int, shots: int, count: int) -> Callable[[], list[Cell]]:
    """Makes so many cells of a fresh learner at each call, none of them known yet."""
    sizes = {"tasks": tasks, "shots": shots, "queries": shots, "vocabulary": tasks}
    task: TaskConfig = parse(TaskConfig, {"name": "glyphs", **sizes}, "task")
    point = Point.as_trained(built_family(task), "meta_test")
    contestant = Contestant.model_validate({"label": name, "learner": {"name": name}, "sha256": name})
    numbers = itertools.count(step=count * EPISODES)
    return lambda: cells_of(contestant, task, point, next(numbers), count * EPISODES)


@ray.remote(num_cpus=1)
def forward(cell: Cell) -> None:
    """The forward passes of a cell, on episodes that are there."""
    torch.set_num_threads(1)
    learner, episodes = prepared(cell.model_dump_json())
    with torch.inference_mode():
        for episode in episodes:
            learner(episode)


@functools.lru_cache(maxsize=1)
def prepared(cell: str) -> tuple[Learner, list[Episode]]:
    """A learner and the episodes of a cell."""
    asked = Cell.model_validate_json(cell)
    family = asked.point.of(built_family(asked.task))
    return built_learner(asked.contestant, asked.task), list(asked.batches(family))
