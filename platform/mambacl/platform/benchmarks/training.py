"""What the platform adds to training: writing checkpoints, and the way from one trial of a sweep to the next."""

import contextlib
import io
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial

from mambacl.learners.registry import build as build_learner
from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.session import session
from mambacl.platform.sweeping.command import claim, search
from mambacl.platform.sweeping.plan import sweep_folder
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Progress
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.optimizer import build_optimizer, state_tensors
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
from mambacl.tasks.registry import build as build_family

STEPS, STEP = 200, 0.05
"""Steps of a trial, and the seconds of one that a trial's overhead is seen beside."""


def rows(scope: Scope) -> Iterator[Row]:
    """On one core, in a folder for temporary files: TMPDIR says on which disk."""
    with tempfile.TemporaryDirectory() as folder:
        yield from checkpoint_rows(Path(folder) / "run", scope)
        yield from sweep_rows(Path(folder) / "runs", scope)


def checkpoint_rows(run: Path, scope: Scope) -> Iterator[Row]:
    """A checkpoint, hashed and flushed, beside as many bytes written to one file and flushed."""
    width, layers = (16, 1) if scope == "tiny" else (512, 3)
    config = experiment({"learner": {"name": "mamba", "width": width, "layers": layers}})
    family = build_family(config.task)
    learner = build_learner(config.learner, family.spec)
    optimizer = build_optimizer(learner, config.train)
    for parameter in learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # there is no state before
    state, steps = state_tensors(learner, optimizer), itertools.count(1)

    def save() -> checkpoint.Checkpoint:
        progress = Progress(
            step=next(steps), score=0.0, best_score=0.0, best_step=1, stale=0, seconds=0.0, stopped=None,
            state_floats=0, spec=family.spec,
        )  # fmt: skip
        return checkpoint.save(run, config, progress, learner.state_dict(), state, [])

    content = b"".join(file.read_bytes() for file in sorted(save().path.iterdir()))

    def write() -> None:
        with (run / "bare").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    saving, writing = measure([save, write], 1, scope, seconds=5.0).T
    size = len(content) / 1e6
    what = f"checkpoint of {size:.1f} MB"
    yield Row.of(what, "s", saving, 1)
    yield Row.of(f"{what}: rate", "MB/s", size / saving, 1)
    yield Row.of(f"{what}: rate of a bare write", "MB/s", size / writing, 1)
    yield Row.of(f"{what}: share of the rate of a bare write", "%", 100 * writing / saving, 1)


def sweep_rows(root: Path, scope: Scope) -> Iterator[Row]:
    """What trials take, one after the other, beside the same training alone."""
    trials = {"full": 20, "quick": 6, "tiny": 4}[scope]
    config = experiment(
        {
            "task": {"name": "sine", "tasks": 3, "shots": 2},
            "learner": {"name": "alpaca", "width": 8},
            "train": {"steps": STEPS, "batch": 2, "warmup": 5, "evaluate_every": STEPS, "evaluate_episodes": 4},
            "search": {"train.learning_rate": {"log": [1e-4, 1e-3]}},
            "sweep": {"trials": trials, "concurrent": 1},
            "resources": {"trainer": "inline"},
            "storage": {
                "root": str(root),
                "tracking_uri": f"sqlite:///{root}/mlflow.db",
                "study_uri": f"sqlite:///{root}/optuna.db",
            },
        }
    )
    runs = itertools.count()
    [alone] = measure([lambda: train_alone(config, root / f"alone-{next(runs)}")], 1, scope, seconds=2.0).T
    took = between(searched(config))
    added = took - np.median(alone)
    what = f"a trial of {STEPS} steps, inline"
    yield Row.of(f"{what}: its training alone", "s", alone, 1)
    yield Row.of(f"{what}: added by the sweep", "s", added, 1, below=0.5)
    yield Row.of(f"{what}: added to {1000 * STEP:g} ms a step", "%", 100 * added / (STEPS * STEP), 1, below=5)


def experiment(content: dict[str, Any]) -> ExperimentConfig:
    return parse(ExperimentConfig, {"name": "bench"} | content)


def train_alone(config: ExperimentConfig, run: Path) -> Progress:
    """The training of a run without Ray, tracking and study."""
    return meta_train(config, run, Worker(), lambda saved: None, lambda step, point: False)


def searched(config: ExperimentConfig) -> list[FrozenTrial]:
    """The trials of a sweep's search, without what follows on it."""
    folder = sweep_folder(config)
    claim(config, folder)
    delivery = Delivery(Store(config.storage))
    with session(None), contextlib.redirect_stdout(io.StringIO()):
        study = search(config, folder, delivery, open_board())
    delivery.finish()
    return study.trials


def between(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Seconds from the end of each trial to the end of the next."""
    return np.diff([trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete])
