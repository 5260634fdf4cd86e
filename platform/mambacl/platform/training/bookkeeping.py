"""What is written down of a training run beside its checkpoints: its record and its config."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.contestant import built_family
from mambacl.platform.origin import origin
from mambacl.platform.overrides import flatten
from mambacl.platform.tracking import classes
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.training import checkpoint
from mambacl.tasks.config import ConfigError


def open_record(
    config: ExperimentConfig, run: Path, parent: Path | None = None, tags: Mapping[str, str] | None = None
) -> None:
    """Write the run's record, or take up the one that an earlier attempt left; its config and the classes of its splits go
    beside it."""
    record = Record(
        kind="train",
        name=run_label(config),
        experiment=config.name,
        parent=str(parent) if parent else None,
        params=params_of(config),
        tags=common_tags(config) | dict(tags or {}),
    )
    records.reopen(run, record)
    (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    # A trial whose task cannot be built has no classes; its worker says why, and the sweep goes on.
    with contextlib.suppress(ConfigError):
        classes.write(run, built_family(config.task))


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


def run_label(config: ExperimentConfig) -> str:
    """A run's name in MLflow: learner, size and selectivity weight."""
    learner = config.learner.model_dump()
    size = "".join(
        f" {short}{learner[field]}"
        for field, short in (("width", "w"), ("state_size", "n"), ("heads", "h"))
        if field in learner
    )
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
    return {
        "mambacl.config": config.digest,
        "mambacl.learner": config.learner.name,
        "mambacl.family": config.task.name,
        "mambacl.seed": str(config.seed),
        "mlflow.source.name": "mambacl",
        **origin().tags,
    }
