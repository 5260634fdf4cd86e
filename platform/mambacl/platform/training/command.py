"""One training run from start to end: record, workers, progress, delivery, and the score to report."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from mambacl.learners.learner import Learner
from mambacl.learners.objective import losses
from mambacl.learners.scan.dispatch import KernelError
from mambacl.learners.selectivity import layer_numbers
from mambacl.platform.alone import alone_in
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.cost import built, size_of
from mambacl.platform.data.own_encoders import check_apart
from mambacl.platform.data.prepare import prepare
from mambacl.platform.driver import Delivery, attend
from mambacl.platform.evaluation.statistics import Sample, interval
from mambacl.platform.places import places_for
from mambacl.platform.session import session
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.run import train
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode

logger = logging.getLogger("mambacl")


def train_one(config: ExperimentConfig, run: Path, address: str | None) -> dict[str, Any]:
    """Train in the folder and return what `mambacl train --json` prints: run_id, checkpoint, split, score with its
    interval, steps and seconds, and what the learner costs. Raises TrainingFailed with the reason."""
    prepare([config.task], address)
    check(config)
    with alone_in(run):
        delivery = Delivery(Store(config.storage))
        with session(address):
            places_for(config.resources)
            open_record(config, run)
            delivery.add(run)
            attend_training(config, run, open_board(), delivery)
        delivery.finish()
    return outcome(run)


def attend_training(config: ExperimentConfig, run: Path, board: ActorHandle, delivery: Delivery) -> None:
    """Train with progress on the screen, and close the run's record however it ends."""
    try:
        attend(lambda: train(config, run, board), board, delivery)
    except BaseException as error:
        close_record(run, error)
        delivery.finish()
        raise
    close_record(run, None)


def check(config: ExperimentConfig) -> None:
    """Raise ConfigError for what can never work, before any worker starts: data, sizes, learner, shares of a batch."""
    learner, family = built(config)
    check_apart(config.task, family)
    pulled = config.selectivity.active(0) or config.selectivity.from_step > 0
    layers = layer_numbers(config.selectivity, learner.layers) if pulled and learner.layers else ()
    if pulled and not learner.layers and learner.trainable:
        logger.warning("selectivity: %s has no associations to pull; it is trained without", config.learner.name)
    if not config.resources.gpus:
        _try_out(learner, family.episodes("meta_train", [0]), layers)
    if config.train.state_passing and (not learner.layers or learner.state_floats(1) != learner.state_floats(2)):
        raise ConfigError(
            f"train.state_passing: needs a sequence learner with a state of fixed size, {config.learner.name} is none"
        )
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
            family.varied(tasks=longest, shots=most).check()
        except ConfigError as error:
            raise ConfigError(f"train.curriculum.{number}: {error}") from None


def _try_out(learner: Learner, episode: Episode, layers: Sequence[int]) -> None:
    """One gradient of one episode: what fails in it fails here, and kernels are compiled once, before workers start."""
    try:
        objective = losses(learner(episode, layers=layers).prediction, episode).mean()
    except KernelError as error:
        raise ConfigError(f"learner.kernel: {error}") from None
    if objective.requires_grad:
        objective.backward()


def outcome(run: Path) -> dict[str, Any]:
    """The result of a finished run, of its best checkpoint."""
    chosen, last = checkpoint.best(run), checkpoint.newest(run)
    assert last is not None
    found = interval(Sample.of(chosen.progress.scores))
    record, config = records.read(run), chosen.config
    return {
        "run_id": record.run_id if record else None,
        "checkpoint": str(chosen.path),
        "split": "meta_val",
        "score": found.score,
        "low": found.low,
        "high": found.high,
        "steps": last.progress.step,
        "seconds": last.progress.seconds,
        **dataclasses.asdict(size_of(*built(config))),
    }
