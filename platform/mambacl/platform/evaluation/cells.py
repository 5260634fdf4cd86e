"""Evaluation cells: one contestant on one range of episodes. A cell is computed once ever, whoever asks for it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import ray
import torch
from einops import rearrange

from mambacl.learners.objective import losses, scores
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner
from mambacl.tasks.config import Config
from mambacl.tasks.randomness import Split
from mambacl.tasks.registry import TaskConfig

VERSION = 1
"""Of what a cell computes: raise it when the numbers change, and old results are not taken for new ones."""

EPISODES = 64
"""Episodes of a cell."""

BATCH_IMAGES = 4096
"""Examples and queries that are evaluated together."""


class Cell(Config):
    """A contestant on episodes `start` to `stop` - 1 of a split, at some episode size."""

    contestant: Contestant
    task: TaskConfig
    """The family as it was trained on; it decides the data and the class splits."""
    digest: str
    """Of the family's data, so that changed data are not taken for the old."""
    tasks: int
    shots: int
    queries: int
    split: Split
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The same for the same result, in any process and for any name or place of the model."""
        content = {
            "version": VERSION,
            "model": self.contestant.sha256,
            "family": self.digest,
            "sizes": [self.tasks, self.shots, self.queries],
            "episodes": [self.split, self.start, self.stop],
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]

    def path(self, root: Path) -> Path:
        """The file of its result, a row an episode."""
        return root / "evaluations" / "cells" / self.name[:2] / f"{self.name}.parquet"


def cells_of(
    contestant: Contestant, task: TaskConfig, sizes: dict[str, int], split: Split, start: int, episodes: int
) -> list[Cell]:
    """Cut a range of episodes into cells; ranges that begin alike share their cells."""
    digest = built_family(task).spec.digest
    return [
        Cell(
            contestant=contestant,
            task=task,
            digest=digest,
            split=split,
            start=first,
            stop=min(first + EPISODES, start + episodes),
            **sizes,
        )
        for first in range(start, start + episodes, EPISODES)
    ]


@torch.inference_mode()
def compute(cell: Cell) -> pd.DataFrame:
    """A row an episode: number, score and loss over all label codes, score over those of the stream, and the
    score of each task position."""
    family = built_family(cell.task).resized(cell.tasks, cell.shots, cell.queries)
    learner = built_learner(cell.contestant, cell.task)
    rows = []
    step = max(1, BATCH_IMAGES // (cell.tasks * (cell.shots + cell.queries)))
    for first in range(cell.start, cell.stop, step):
        episode = family.episodes(cell.split, range(first, min(first + step, cell.stop)))
        prediction = learner(episode).prediction
        right = scores(prediction, episode).double()
        rows.append(
            pd.DataFrame(
                {
                    "episode": episode.index.numpy(),
                    "score": right.mean(1).numpy(),
                    "score_seen": scores(prediction, episode, "seen").double().mean(1).numpy(),
                    "loss": losses(prediction, episode, "seen").double().mean(1).numpy(),
                    "by_task": list(rearrange(right, "b (k q) -> b k q", k=cell.tasks).mean(2).numpy()),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def results(cells: Iterable[Cell], root: Path, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Results of the cells, with their contestant and sizes beside each row; those not on disk are computed by Ray tasks.

    Each finished cell is on disk before it counts, so that a killed evaluation continues. progress: (done, all).
    """
    cells = list(cells)
    missing = [cell for cell in cells if not cell.path(root).is_file()]
    waiting = [_compute_and_write.remote(cell, root) for cell in missing]
    progress(len(cells) - len(missing), len(cells))
    while waiting:
        finished, waiting = ray.wait(waiting)
        ray.get(finished)
        progress(len(cells) - len(waiting), len(cells))
    return pd.concat([_read(cell, root) for cell in cells], ignore_index=True)


@ray.remote(num_cpus=1, max_retries=3)
def _compute_and_write(cell: Cell, root: Path) -> None:
    torch.set_num_threads(1)
    path = cell.path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    compute(cell).to_parquet(draft)
    draft.rename(path)


def _read(cell: Cell, root: Path) -> pd.DataFrame:
    rows = pd.read_parquet(cell.path(root))
    contestant = cell.contestant
    return rows.assign(contestant=contestant.label, trained=contestant.trained, tasks=cell.tasks, shots=cell.shots)
