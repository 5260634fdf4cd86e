"""Evaluation cells: one contestant at one point, on one range of episodes. A cell is computed once ever, whoever asks."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray.exceptions import NodeDiedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner
from mambacl.platform.evaluation.measures import MEASURES
from mambacl.platform.evaluation.point import Point
from mambacl.platform.machine import device, subnormals_as_zero
from mambacl.tasks.config import Config, ConfigError
from mambacl.tasks.episode import Episode
from mambacl.tasks.family import Family
from mambacl.tasks.images_config import ImageFamilyConfig
from mambacl.tasks.registry import TaskConfig

EPISODES = 64
"""Episodes of a cell."""

BATCH_IMAGES = 4096
"""Examples and queries that are evaluated together."""


class Cell(Config):
    """A contestant at a point, on episodes `start` to `stop` - 1."""

    contestant: Contestant
    measure: str
    """What is measured: a name of MEASURES."""
    point: Point
    task: TaskConfig
    """The family as it was trained on; it decides the data and the class splits."""
    digest: str
    """Of the family's data, so that changed data are not taken for the old."""
    start: int
    stop: int
    settings: dict[str, Any] = {}
    """What the suite asks of the measure beside the point."""
    machine: str = ""
    """Where it is measured, for measures that depend on it."""

    @property
    def name(self) -> str:
        """The same for the same result, in any process and for any name or place of the model."""
        content = {
            "measure": [self.measure, MEASURES[self.measure].version],
            "model": self.contestant.sha256,
            "family": self.digest,
            "point": self.point.identity,
            "episodes": [self.start, self.stop],
        }
        if self.task.output == "classification":
            content["codes"] = self.task.codes  # of which those of an episode are drawn, before its images
        if self.point.split == "meta_train" and self.point.augmented and isinstance(self.task, ImageFamilyConfig):
            content["augment"] = self.task.model_dump(mode="json", include={"augment", "augment_vectors"})
        content |= self.model_dump(mode="json", include={"settings", "machine"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    def path(self, root: Path) -> Path:
        """The file of its result, a row an episode."""
        return root / "evaluations" / "cells" / self.name[:2] / f"{self.name}.parquet"

    def batches(self, family: Family) -> Iterator[Episode]:
        """The cell's episodes, as many at a time as fit in memory."""
        config = family.config
        step = max(1, BATCH_IMAGES // (config.examples + config.tasks * config.queries))
        for first in range(self.start, self.stop, step):
            yield family.episodes(self.point.split, range(first, min(first + step, self.stop))).to(device())


def cells_of(
    contestant: Contestant,
    task: TaskConfig,
    point: Point,
    start: int,
    episodes: int,
    measure: str = "scores",
    settings: dict[str, Any] | None = None,
) -> list[Cell]:
    """Cut a range of episodes into cells; ranges that begin alike share their cells."""
    digest = built_family(task).spec.digest
    return [
        Cell(
            contestant=contestant,
            measure=measure,
            point=point,
            task=task,
            digest=digest,
            start=first,
            stop=min(first + EPISODES, start + episodes),
            settings=settings or {},
        )
        for first in range(start, start + episodes, EPISODES)
    ]


@subnormals_as_zero()
@torch.inference_mode()
def compute(cell: Cell) -> pd.DataFrame:
    """A row an episode, with the columns of the cell's measure."""
    family = cell.point.of(built_family(cell.task))
    learner = built_learner(cell.contestant, cell.task).to(device())
    return MEASURES[cell.measure].compute(cell, family, learner)


def results(cells: Sequence[Cell], root: Path, progress: Callable[[int, int], None], gpus: float = 0) -> pd.DataFrame:
    """Results of the cells, with contestant and place beside each row; those not on disk are computed by Ray tasks.

    Each finished cell is on disk before it counts, so that a killed evaluation continues. progress: (done, all);
    gpus: what each task asks for.
    """
    options = {measure: _options(measure, gpus) for measure in {cell.measure for cell in cells}}
    machines = {
        measure: ray.get(_machine.options(**asked).remote(measure)) if MEASURES[measure].machine else ""
        for measure, asked in options.items()
    }
    cells = [cell.model_copy(update={"machine": machines[cell.measure]}) for cell in cells]
    missing = {cell.name: cell for cell in cells if not cell.path(root).is_file()}

    def start(cell: Cell) -> ray.ObjectRef:
        return _compute_and_write.options(**options[cell.measure]).remote(cell, root)

    waiting = {start(cell): cell for cell in missing.values()}
    progress(len(cells) - len(missing), len(cells))
    while waiting:
        [one], _ = ray.wait(list(waiting))
        cell = waiting.pop(one)
        try:
            ray.get(one)
        except NodeDiedError:  # Ray tries a few times again; however many nodes are lost, the cell is not to blame
            waiting[start(cell)] = cell
        progress(len(cells) - len(waiting), len(cells))
    return pd.concat(_read(cells, root), ignore_index=True)


def _options(measure: str, gpus: float) -> dict[str, Any]:
    """What Ray is asked for: a CPU, or for times all CPUs of a node and whole GPUs, always on the same node."""
    if MEASURES[measure].machine is None:
        return {"num_gpus": gpus}
    own = ray.get_runtime_context().get_node_id()
    able = [
        node for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1 and node["Resources"].get("GPU", 0) >= gpus
    ]  # fmt: skip
    if not able:
        raise ConfigError(f"gpus: no node has {gpus:g} and a CPU")
    node = min(able, key=lambda node: (node["NodeID"] != own, node["NodeManagerAddress"]))
    return {
        "num_cpus": node["Resources"]["CPU"],
        "num_gpus": math.ceil(gpus),
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    }


@ray.remote(num_cpus=1)
def _machine(measure: str) -> str:
    torch.set_num_threads(1)
    name = MEASURES[measure].machine
    assert name is not None
    return name()


@ray.remote(num_cpus=1, max_retries=3)
def _compute_and_write(cell: Cell, root: Path) -> None:
    torch.set_num_threads(1)
    path = cell.path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    compute(cell).to_parquet(draft)
    draft.rename(path)


def _read(cells: Iterable[Cell], root: Path) -> Iterator[pd.DataFrame]:
    for cell in cells:
        contestant, point = cell.contestant, cell.point
        who = {
            "contestant": contestant.label,
            "learner": contestant.learner.name,
            "trained": contestant.trained,
            "seed": contestant.seed,
        }
        sizes = {"split": point.split, "tasks": point.tasks, "shots": point.shots}
        yield pd.read_parquet(cell.path(root)).assign(**who | sizes | point.where)
