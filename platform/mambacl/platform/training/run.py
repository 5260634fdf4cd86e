"""A training run from the driver's side: tried until it is over, or can never be."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback, WorkerGroupError
from ray.train.torch import TorchTrainer

from mambacl.platform.config import ExperimentConfig, ResourcesConfig
from mambacl.platform.lost import LostNodes, out_of_reach
from mambacl.platform.training import checkpoint, failure
from mambacl.platform.training.failure import out_of_memory
from mambacl.platform.training.loop import PROCESS, Diverged, Preempted
from mambacl.platform.training.ray_worker import Job, train_alone, train_worker

logger = logging.getLogger("mambacl")

Attempt = Callable[[Job], None]
"""One try to train to the end, from the newest checkpoint. It raises what ended it, or an error that holds it."""


def train(config: ExperimentConfig, run: Path, board: ActorHandle, attempt: Attempt | None = None) -> None:
    """Train in the folder `run`, from its newest checkpoint where it has one, as `resources.trainer` says.

    attempt: another way to try. A run that is over already stays as it is. Workers that died are started again; workers
    that were asked to leave their machine or lost it, too, and that is not counted; where memory is short, workers cut their
    share of the batch into more parts. Raises TrainingFailed with the reason, such as a loss that is no number, and keeps it in
    the folder. Raises Preempted where it is this process that was asked to leave.
    """
    if (last := checkpoint.newest(run)) and last.progress.stopped:
        return
    run.mkdir(parents=True, exist_ok=True)
    failure.forget(run)
    attempt = attempt or (in_a_process if config.resources.trainer == "inline" else with_ray_train())
    retrial = Retrial(config, run)
    while True:
        try:
            attempt(retrial.job(board))
            break
        except Exception as error:
            retrial.after(_cause(error))
    if checkpoint.newest(run) is None:
        raise failure.write(run, "ended without a checkpoint", "")


class Retrial:
    """Decides what follows on an attempt that ended before the run was over."""

    def __init__(self, config: ExperimentConfig, run: Path) -> None:
        self.config, self.run = config, run
        self.failures = 0
        self.lost = LostNodes()
        self.accumulate = config.train.accumulate

    def job(self, board: ActorHandle) -> Job:
        """Of the next attempt."""
        config = self.config.model_dump(mode="json")
        return {"config": config, "run": str(self.run), "board": board, "accumulate": self.accumulate}

    def after(self, error: Exception) -> None:
        """Returns where the run is to be tried again. Raises TrainingFailed, or Preempted where this process is to end."""
        reason, text = failure.in_words(error)
        name, retries = self.run.name, self.config.resources.retries
        if isinstance(error, Preempted):
            if error.process == PROCESS:
                raise error
            logger.warning("%s: %s; it goes on elsewhere", name, error)
            return
        if isinstance(error, Diverged):
            raise failure.write(self.run, str(error), text)
        if out_of_memory(error):
            self._save_memory(reason, text)
            return
        if self.lost.another(self.run) or out_of_reach(reason):
            logger.warning("%s: a node was lost or out of reach; it goes on elsewhere", name)
            return
        self.failures += 1
        if self.failures > retries:
            raise failure.write(self.run, reason, text)
        logger.warning("%s: %s; started again, %d of %d times", name, reason, self.failures, retries)

    def _save_memory(self, reason: str, text: str) -> None:
        """Half the episodes at a time, down to single ones."""
        last = checkpoint.newest(self.run)
        now = max(self.accumulate, last.progress.accumulate if last else 1)
        self.accumulate = min(2 * now, self.config.train.batch // self.config.resources.workers)
        if self.accumulate <= now:
            raise failure.write(self.run, f"out of memory with one episode at a time: {reason}", text)
        logger.warning("%s: out of memory; it goes on with accumulate = %d", self.run.name, self.accumulate)


def with_ray_train(callbacks: Sequence[UserCallback] = ()) -> Attempt:
    """Try with workers of Ray Train."""

    def attempt(job: Job) -> None:
        resources, run = ResourcesConfig(**job["config"]["resources"]), Path(job["run"])
        trainer = TorchTrainer(
            train_worker,
            train_loop_config=job,
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus > 0,
                resources_per_worker={"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {}),
                accelerator_type=resources.accelerator,
                placement_strategy=resources.placement,
            ),
            run_config=RunConfig(
                # A new name each time: our own checkpoints decide where to go on, not the state that Ray keeps by name.
                name=f"attempt-{time.time_ns():x}-{os.getpid()}",
                storage_path=str(run / "ray"),
                failure_config=FailureConfig(max_failures=0),
                callbacks=list(callbacks),
            ),
        )
        trainer.fit()

    return attempt


def in_a_process(job: Job) -> None:
    """Try in one process of its own, on any node."""
    resources = ResourcesConfig(**job["config"]["resources"])
    asked = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "accelerator_type": resources.accelerator}
    alone: Any = Alone.options(**asked).remote()  # type: ignore[attr-defined]
    try:
        ray.get(alone.train.remote(job))
    finally:
        ray.kill(alone)


@ray.remote
class Alone:
    """A process that trains."""

    def train(self, job: Job) -> None:
        train_alone(job, lambda facts: None)


def _cause(error: Exception) -> Exception:
    """What ended an attempt, out of what Ray made of it; of several workers' errors one that the others follow from."""
    if isinstance(error, WorkerGroupError):
        found = list(error.worker_failures.values())
        telling = [one for one in found if isinstance(one, Diverged | Preempted) or out_of_memory(one)]
        return (telling or found)[0]
    return error.cause if isinstance(error, RayTaskError) else error  # type: ignore[return-value]
