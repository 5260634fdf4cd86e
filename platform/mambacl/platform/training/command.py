"""One training run from start to end: record, workers, progress, delivery, and the score to report."""

import getpass
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mambacl import learners, tasks
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery, attend
from mambacl.platform.evaluation.statistics import interval
from mambacl.platform.overrides import flatten
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.run import train
from mambacl.tasks.config import ConfigError


def train_one(config: ExperimentConfig, run: Path) -> dict[str, Any]:
    """Train in the folder and return what `mambacl train --json` prints: run_id, checkpoint, split, score with its
    interval, steps and seconds. Raises TrainingFailed with the reason."""
    check(config)
    open_record(config, run)
    delivery = Delivery(Store(config.storage))
    delivery.add(run)
    board = open_board()
    try:
        attend(lambda: train(config, run, board), board, delivery)
    except BaseException as error:
        close_record(run, error)
        delivery.finish()
        raise
    close_record(run, None)
    delivery.finish()
    return outcome(run)


def check(config: ExperimentConfig) -> None:
    """Raise ConfigError for what can never work, before any worker starts: data, sizes, learner, shares of a batch."""
    family = tasks.build(config.task)
    learner = learners.build(config.learner, family.spec)
    if not list(learner.parameters()):
        raise ConfigError(f"learner.name: {config.learner.name!r} has nothing to train; evaluate it as a reference")
    if config.selectivity.loss != "none" and config.selectivity.layers not in ("last", "all"):
        learner(family.episodes("meta_train", [0]), layers=config.selectivity.layers)
    share = config.train.batch // (config.resources.workers * config.train.accumulate)
    if share < 1:
        raise ConfigError(
            f"train.batch: {config.train.batch} episodes are too few for {config.resources.workers} workers "
            f"x {config.train.accumulate} parts"
        )
    for number, stage in enumerate(config.train.curriculum):
        longest = max(stage.tasks) if isinstance(stage.tasks, tuple) else stage.tasks
        most = max(stage.shots) if isinstance(stage.shots, tuple) else stage.shots
        try:
            family.resized(tasks=longest, shots=most).check()
        except ConfigError as error:
            raise ConfigError(f"train.curriculum.{number}: {error}") from None


def open_record(config: ExperimentConfig, run: Path, parent: Path | None = None, tags: Mapping[str, str] | None = None) -> None:
    """Write the run's record, or take up the one that an earlier attempt left; its config goes beside it."""
    known = records.read(run)
    record = Record(
        kind="train",
        name=run_label(config),
        experiment=config.name,
        parent=str(parent) if parent else None,
        params=params_of(config),
        tags=common_tags(config) | dict(tags or {}),
    )
    if known:
        record = record.model_copy(update={"run_id": known.run_id, "started": known.started})
    records.write(run, record)
    (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def close_record(run: Path, error: BaseException | None) -> None:
    """Say in the record how the run ended."""
    last = checkpoint.newest(run)
    tags = dict(records.read(run).tags)  # type: ignore[union-attr]
    if last and last.progress.stopped:
        tags["mambacl.stopped"] = last.progress.stopped
    if error is not None:
        tags["mambacl.reason"] = f"{type(error).__name__}: {error}"[:500] if str(error) else type(error).__name__
    interrupted = isinstance(error, KeyboardInterrupt)
    status: records.Status = "FINISHED" if error is None else "KILLED" if interrupted else "FAILED"
    metrics = {}
    if last and last.progress.best_score is not None:
        metrics = {"best/score": last.progress.best_score, "best/step": float(last.progress.best_step)}
    records.update(run, status=status, tags=tags, metrics=metrics)


def outcome(run: Path) -> dict[str, Any]:
    """The result of a finished run, of its best checkpoint."""
    chosen, last = checkpoint.best(run), checkpoint.newest(run)
    assert last is not None
    found = interval(np.asarray(chosen.progress.scores))
    record = records.read(run)
    return {
        "run_id": record.run_id if record else None,
        "checkpoint": str(chosen.path),
        "split": "meta_val",
        "score": found.score,
        "low": found.low,
        "high": found.high,
        "steps": last.progress.step,
        "seconds": last.progress.seconds,
    }


def run_label(config: ExperimentConfig) -> str:
    """A run's name in MLflow: learner, size and selectivity weight."""
    learner = config.learner.model_dump()
    size = "".join(f" {short}{learner[field]}" for field, short in (("width", "w"), ("state_size", "n"), ("heads", "h")) if field in learner)
    pull = f" {config.selectivity.loss} {config.selectivity.weight:.3g}" if config.selectivity.loss != "none" else ""
    return f"{config.learner.name}{size}{pull}"


def params_of(config: ExperimentConfig) -> dict[str, Any]:
    """The config as MLflow params: dotted names; fields that are searched on a log scale also as log10, since MLflow's
    comparison draws linear axes."""
    params = flatten(config.model_dump(mode="json", exclude={"storage", "search", "sweep", "resources"}))
    for name, dimension in config.search.items():
        if dimension.log is not None and params.get(name):
            params[f"log10 {name}"] = math.log10(params[name])
    return params


def common_tags(config: ExperimentConfig) -> dict[str, str]:
    """Tags that every run carries."""
    tags = {
        "mambacl.config": config.digest,
        "mambacl.learner": config.learner.name,
        "mambacl.family": config.task.name,
        "mambacl.seed": str(config.seed),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "mambacl",
    }
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    if job := os.environ.get("RAY_JOB_SUBMISSION_ID"):
        tags["mambacl.ray_job"] = job
    return tags
