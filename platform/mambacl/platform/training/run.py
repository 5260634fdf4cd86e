"""A training run on Ray Train, from the driver's side."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ray.actor import ActorHandle
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.ray_worker import FAILURE, train_worker


class TrainingFailed(RuntimeError):
    """A run that cannot be finished; the message is its reason."""


def train(config: ExperimentConfig, run: Path, board: ActorHandle, callbacks: Sequence[UserCallback] = ()) -> None:
    """Train in the folder `run` with Ray Train workers, from its newest checkpoint where it has one.

    A run that is over already stays as it is. Workers that die are started again. Raises TrainingFailed with the reason,
    such as a loss that is no number.
    """
    if (last := checkpoint.newest(run)) and last.progress.stopped:
        return
    run.mkdir(parents=True, exist_ok=True)
    (run / FAILURE).unlink(missing_ok=True)
    resources = config.resources
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"config": config.model_dump(mode="json"), "run": str(run), "board": board},
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
            failure_config=FailureConfig(max_failures=resources.retries),
            callbacks=list(callbacks),
        ),
    )
    trainer.fit()
    if (run / FAILURE).is_file():
        raise TrainingFailed(json.loads((run / FAILURE).read_text())["reason"])
    if checkpoint.newest(run) is None:
        raise TrainingFailed("ended without a checkpoint")
