"""Checkpoints: folders that are complete or do not count, and hold all that a run needs to go on to the same weights.

    RUN/checkpoints/step-00000200/
        model.safetensors  optimizer.safetensors  config.json  progress.json  curve.jsonl  manifest.json
The folder is written under another name, the manifest (SHA-256 of every file) last, and then renamed.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from mambacl.platform.config import ExperimentConfig
from mambacl.tasks.config import Config, ConfigError, parse
from mambacl.tasks.episode import Spec

logger = logging.getLogger("mambacl")

MANIFEST = "manifest.json"


ExpertUse = tuple[tuple[tuple[float, ...], ...], ...]


class Progress(Config):
    """How far a run has come."""

    step: int
    """Optimiser steps done."""
    score: float | None
    """Mean meta-val score of these weights; None before the first evaluation."""
    scores: tuple[float, ...] = ()
    """That score for each meta-val episode."""
    expert_use: ExpertUse = ()
    """Of a mixture: share of the queries of a task that goes to an expert, [layer][task position][expert]."""
    best_score: float | None
    best_step: int
    stale: int
    """Evaluations since the best one."""
    seconds: float
    """Training time so far, over all attempts."""
    cpu_seconds: float = 0.0
    """Time that processors of the first worker were busy, over all attempts: the same whatever else the machine does."""
    stopped: str | None
    """Why the run is over, or None while it is not."""
    accumulate: int = 1
    """Parts that workers cut their share of a batch into: more than the config's where memory was too short for those."""
    preempted: int = 0
    """How often a worker was asked to leave its machine, over all attempts."""
    window: tuple[float, ...] = ()
    """Sums of the training metrics since the last point of the curve."""
    state_floats: int
    """Numbers that the learner holds after an episode's stream."""
    spec: Spec
    """Of the task family that it was trained on."""


class Checkpoint(BaseModel):
    """A complete checkpoint on disk."""

    model_config = ConfigDict(frozen=True)

    path: Path

    @property
    def progress(self) -> Progress:
        return parse(Progress, _read_json(self.path / "progress.json"))

    @property
    def config(self) -> ExperimentConfig:
        return parse(ExperimentConfig, _read_json(self.path / "config.json"))

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.path / "model.safetensors")

    @property
    def optimizer(self) -> dict[str, Tensor]:
        return load_file(self.path / "optimizer.safetensors")

    @property
    def curve(self) -> list[dict[str, float]]:
        """Every metric point of the run up to here: {"step": 10, "train/loss": 2.3, ...}, in order of steps."""
        return [json.loads(line) for line in (self.path / "curve.jsonl").read_text().splitlines()]

    @property
    def sha256(self) -> str:
        """Identifies the model: hash of weights and config."""
        files = _read_json(self.path / MANIFEST)
        return hashlib.sha256((files["model.safetensors"] + files["config.json"]).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What a search hears of it."""
        progress = self.progress
        return {
            "step": progress.step,
            "score": progress.best_score,
            "state_floats": progress.state_floats,
            "finished": progress.stopped is not None,
        }

    def fault(self) -> str | None:
        """What is wrong with the files, or None."""
        try:
            hashes = _read_json(self.path / MANIFEST)
            if strange := [name for name in hashes if Path(name).name != name]:
                return f"{strange[0]!r} is no file name"
            for name, digest in hashes.items():
                if _sha256(self.path / name) != digest:
                    return f"{name} has changed"
        except (OSError, ValueError) as error:
            return str(error)
        return None


def save(
    run: Path,
    config: ExperimentConfig,
    progress: Progress,
    weights: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    curve: list[dict[str, float]],
) -> Checkpoint:
    """Write the checkpoint of a step, then remove those that are neither among the newest nor the best.

    Raises what the disk raises, such as that it is full; older checkpoints stay.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{progress.step:08d}"
    _remove_drafts(folder)
    draft = folder / f".draft-{progress.step:08d}-{os.getpid()}"
    draft.mkdir(parents=True)
    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft / "model.safetensors")
        save_file(optimizer, draft / "optimizer.safetensors")
        (draft / "config.json").write_text(config.model_dump_json(indent=1))
        (draft / "progress.json").write_text(progress.model_dump_json(indent=1))
        (draft / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve))
        for file in draft.iterdir():
            _flush(file)
        hashes = {file.name: _sha256(file) for file in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps(hashes, indent=1))
        _flush(draft / MANIFEST)
    except Exception:
        _remove_drafts(folder)  # a full disk gets its room back
        raise
    if final.exists():  # a faulty one that this run went back before
        shutil.rmtree(final)
    draft.rename(final)
    _flush(folder)
    _remove_old(folder, config.train.keep, progress.best_step)
    return Checkpoint(path=final)


def newest(run: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are whole; those that are not are named in the log and passed over."""
    for path in reversed(list(_complete(run / "checkpoints"))):
        checkpoint = Checkpoint(path=path)
        if (fault := checkpoint.fault()) is None:
            return checkpoint
        logger.warning("checkpoint %s is passed over: %s", path, fault)
    return None


def best(run: Path) -> Checkpoint:
    """The checkpoint with the best meta-val score. Raises ConfigError where there is none."""
    last = newest(run)
    if last is None:
        raise ConfigError(f"{run}: holds no complete checkpoint")
    chosen = Checkpoint(path=last.path.with_name(f"step-{last.progress.best_step:08d}"))
    if fault := chosen.fault():
        logger.warning("best checkpoint %s is passed over for the newest: %s", chosen.path, fault)
        return last
    return chosen


def _complete(folder: Path) -> Iterator[Path]:
    """Folders of finished checkpoints, oldest first."""
    yield from (path for path in sorted(folder.glob("step-*")) if (path / MANIFEST).is_file())


def _remove_old(folder: Path, keep: int, best_step: int) -> None:
    for path in list(_complete(folder))[:-keep]:
        if path.name != f"step-{best_step:08d}":
            shutil.rmtree(path)


def _remove_drafts(folder: Path) -> None:
    """What killed attempts left."""
    for path in folder.glob(".draft-*"):
        shutil.rmtree(path)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
