"""What executes the training loop: workers of Ray Train, or one process of its own."""

import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import ActorDiedError

from mambacl.platform.board import run_name
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.machine import device
from mambacl.platform.training.checkpoint import Checkpoint
from mambacl.platform.training.loop import LOG_EVERY, Leaving, Report, meta_train
from mambacl.platform.training.notice import Notice
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

Job = dict[str, Any]
"""{"config": the experiment, "run": its folder, "board": the board's handle, "accumulate": parts that memory asks for}."""


def train_worker(job: Job) -> None:
    """Ray Train executes this on each worker."""
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())

    def report(saved: Checkpoint) -> None:
        # All workers report, and so wait for each other; the facts of the first, which wrote the files, count.
        ray.train.report(saved.facts if worker.rank == 0 else {})

    with Notice() as notice:

        def leaving(step: int) -> bool:
            # All workers ask Ray for its notice together, and get the same answer; that takes a moment.
            return notice.heard or (step % LOG_EVERY == 0 and ray.train.get_preemption_info() is not None)

        try:
            _train(job, worker, report, leaving)
        except Exception as error:
            error.add_note(traceback.format_exc())  # it is lost on the way to the driver
            raise


def train_alone(job: Job, report: Callable[[dict[str, Any]], None]) -> None:
    """Train in this process, without Ray Train; `report` is called with the facts of each checkpoint."""
    with Notice() as notice:
        _train(job, Worker(device=device()), lambda saved: report(saved.facts), lambda step: notice.heard)


def _train(job: Job, worker: Worker, report: Report, leaving: Leaving) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = parse(ExperimentConfig, job["config"])
    run, board = Path(job["run"]), job["board"]
    use_threads(config.resources.cpus)
    name = run_name(run)

    def live(step: int, point: dict[str, float]) -> bool:
        facts = {"step": step, "of": config.train.steps, "pid": os.getpid(), **point}
        try:
            return ray.get(board.post.remote(name, facts))
        except (
            ActorDiedError
        ):  # it is where the driver is: both are lost, and whoever resumes the run goes on from here
            return True

    meta_train(config, run, worker, report, live, leaving, job["accumulate"])


def use_threads(count: int) -> None:
    """Compute with as many threads as Ray gave CPUs: more on few cores spin each other to death."""
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(count)
