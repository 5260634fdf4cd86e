"""What Ray Train executes on each worker: threads, device, then the training loop."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from mambacl.platform.board import run_name
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.checkpoint import Checkpoint
from mambacl.platform.training.loop import Diverged, meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

FAILURE = "failure.json"
"""In a run's folder: why it can never be finished. Trying again would fail alike."""


def train_worker(job: dict[str, Any]) -> None:
    """job: {"config": the experiment, "run": its folder, "board": the board's handle}."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = parse(ExperimentConfig, job["config"])
    run, board = Path(job["run"]), job["board"]
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    use_threads(config.resources.cpus)
    name = run_name(run)

    def report(saved: Checkpoint) -> None:
        # All workers report, and so wait for each other; the facts of the first, which wrote the files, count.
        ray.train.report(saved.facts if worker.rank == 0 else {})

    def live(step: int, point: dict[str, float]) -> bool:
        return ray.get(board.post.remote(name, {"step": step, "of": config.train.steps, "pid": os.getpid(), **point}))

    try:
        meta_train(config, run, worker, report, live)
    except Diverged as error:
        (run / FAILURE).write_text(json.dumps({"reason": str(error)}))


def use_threads(count: int) -> None:
    """Compute with as many threads as Ray gave CPUs: more on few cores spin each other to death."""
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(count)
