"""Encoders of models that were trained here, as frozen encoders of a task family."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from mambacl.learners.encoders.kept import Kept, keep
from mambacl.learners.registry import build
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.contestant import has_encoder
from mambacl.platform.overrides import vary
from mambacl.platform.tracking import classes
from mambacl.platform.tracking.registry import Reference, find
from mambacl.tasks.config import ConfigError
from mambacl.tasks.family import Family
from mambacl.tasks.frozen import OWN
from mambacl.tasks.images_config import DatasetConfig
from mambacl.tasks.randomness import SPLITS
from mambacl.tasks.registry import TaskConfig
from mambacl.tasks.sources.source import open_source
from mambacl.tasks.store import cache_folder

logger = logging.getLogger("mambacl")

WEIGHTS = "encoder.safetensors"


def with_own_encoder(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with the file of its frozen encoder, where that is named by a model; any other as it is.

    Raises ConfigError where there is no such model, or it has no encoder of images.
    """
    encoder = getattr(config.task, "encoder", None)
    if encoder is None or not _names_a_model(encoder.frozen):
        return config
    if encoder.weights:
        raise ConfigError("task.encoder.weights: belongs to a library's encoder, and task.encoder.frozen names a model")
    found = find(encoder.frozen, config.storage)
    weights = _kept(found)
    name = f"{OWN}/{found.checkpoint.config.learner.name}"
    return vary(config, {"task.encoder.frozen": name, "task.encoder.weights": str(weights)})


def _names_a_model(frozen: str) -> bool:
    return frozen.startswith(("models:/", "runs:/")) or Path(frozen).is_dir()


def _kept(found: Reference) -> Path:
    """The encoder of a model in the cache, beside the classes that it was trained on."""
    checkpoint = found.checkpoint
    if fault := checkpoint.fault():
        raise ConfigError(f"task.encoder.frozen: {found.text} is refused, {fault}")
    folder = cache_folder() / "encoders" / checkpoint.sha256[:16]
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    trained, spec = checkpoint.config, checkpoint.progress.spec
    learner = build(trained.learner, spec)
    if not has_encoder(learner):
        raise ConfigError(f"task.encoder.frozen: {trained.learner.name} has no encoder")
    learner.load_state_dict(checkpoint.weights)
    config: Any = trained.learner
    task = trained.task
    fit = open_source(task).fit if isinstance(task, DatasetConfig) else "stretch"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = classes.beside(checkpoint.path) / classes.FILE
    if drawn.is_file():
        shutil.copy(drawn, folder)
    # The weights come last, and at once: whoever sees them can use them.
    draft = folder / f".{os.getpid()}"
    keep(learner, Kept(encoder=config.encoder, width=config.width, spec=spec, fit=fit), draft)
    draft.replace(folder / WEIGHTS)
    return folder / WEIGHTS


def check_apart(task: TaskConfig, family: Family) -> None:
    """Raise ConfigError where an encoder of a model was trained or chosen on classes that are to be new to what reads its features:
    those of meta-train alone may be known to it."""
    encoder = getattr(task, "encoder", None)
    if encoder is None or not encoder.frozen.startswith(f"{OWN}/"):
        return
    own, asked = classes.read(Path(encoder.weights).parent), classes.classes_of(family)
    assert asked is not None
    if own is None:
        logger.warning("task.encoder: nobody knows what its model was trained on: it kept no %s", classes.FILE)
        return
    for place, split in enumerate(SPLITS[1:], 1):
        found, doubt = classes.met(own, asked, split, SPLITS[:place])
        met = {name: int(mask.sum()) for name, mask in found.items() if mask.any()}
        if met:
            counts = ", ".join(f"{count} in its {name}" for name, count in met.items())
            raise ConfigError(
                f"task.encoder.frozen: the model met classes of {split} before ({counts}); allowed: one that was trained on this data "
                "with the same task.seed, or on other classes"
            )
        if doubt and place == 1:
            logger.warning("task.encoder: what its model has met is %s", doubt)
