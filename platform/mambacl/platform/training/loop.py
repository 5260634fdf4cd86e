"""Meta-training: the loop that every worker of a run executes, with or without Ray around it."""

import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import torch

from mambacl.learners.objective import higher_is_better
from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.machine import subnormals_as_zero
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Checkpoint, Progress
from mambacl.platform.training.closed_form import at_its_best
from mambacl.platform.training.lengths import lengths
from mambacl.platform.training.optimizer import (
    build_optimizer,
    learning_rate,
    load_state_tensors,
    set_learning_rate,
    state_tensors,
)
from mambacl.platform.training.step import METRICS, Stepper
from mambacl.platform.training.validate import validate
from mambacl.platform.training.worker import Worker
from mambacl.tasks.registry import build as build_family

logger = logging.getLogger("mambacl")

LOG_EVERY = 10
"""Steps between points of the training curve; each is the mean over its steps."""

PROCESS = uuid.uuid4().hex
"""Names this process among those of all machines."""

Report = Callable[[Checkpoint], None]
Live = Callable[[int, dict[str, float]], bool]
Leaving = Callable[[int], bool]


class Diverged(RuntimeError):
    """The training loss is no longer a number."""


class Preempted(RuntimeError):
    """A worker was asked to leave its machine; the run wrote a checkpoint and goes on elsewhere."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.process = PROCESS


@subnormals_as_zero()
def meta_train(
    config: ExperimentConfig,
    run: Path,
    worker: Worker,
    report: Report,
    live: Live,
    leaving: Leaving = lambda step: False,
    accumulate: int = 1,
) -> Progress:
    """Train to config.train.steps from the newest whole checkpoint of the folder `run`, or from the start.

    After every evaluation a checkpoint is written and `report` called with it, on every worker. `live` hears of each
    point of the curve, on the first worker; when it returns True the run writes a checkpoint and ends, to be continued.
    `leaving` is asked after each step, on every worker: True says that this process must end soon.
    accumulate: parts that a worker cuts its share of a batch into, where the config's are too few for the memory.
    Returns the progress at the end, with the reason in `stopped` where the run is over. Raises Preempted after the
    checkpoint of a worker that is leaving, and Diverged when the loss is NaN or infinite; the checkpoints before that stay.
    """
    train = config.train
    family = build_family(config.task)
    torch.manual_seed(config.seed)
    learner = build_learner(config.learner, family.spec).to(worker.device)
    steps = train.steps if learner.trainable else 0
    optimizer = build_optimizer(learner, train)
    progress = Progress(
        step=0,
        score=None,
        best_score=None,
        best_step=0,
        stale=0,
        seconds=0.0,
        stopped=None,
        state_floats=learner.state_floats(config.task.examples),
        spec=family.spec,
    )
    curve: list[dict[str, float]] = []
    if last := checkpoint.newest(run):
        learner.load_state_dict(last.weights)
        load_state_tensors(learner, optimizer, last.optimizer)
        progress, curve = last.progress, last.curve
        logger.info("continuing %s from step %d", run.name, progress.step)
    parts = max(train.accumulate, progress.accumulate, accumulate)
    progress = progress.model_copy(update={"accumulate": parts})
    stepper = Stepper(learner, optimizer, config, worker, parts)
    clock = Clock(progress)
    window = torch.tensor(progress.window or [0.0] * len(METRICS), dtype=torch.float64)
    if not steps and progress.stopped is None:
        config, learner, found = at_its_best(config, family, worker, parts)
        curve.append({"step": 0, "time": _now(), **found.point})
        score = found.point["meta_val/score"]
        progress = progress.model_copy(
            update={"score": score, "scores": found.scores, "best_score": score, "stopped": "nothing to train"}
        )
        report(_save(run, config, progress, learner, optimizer, curve, worker))
    learner.train()
    for step in range(progress.step, steps if progress.stopped is None else 0):
        rate = learning_rate(train, step)
        set_learning_rate(optimizer, rate)
        sized = family.varied(**lengths(config, step))
        first = (config.seed << 40) + step * train.batch
        own = stepper.step(lambda i, f=sized: f.episodes("meta_train", i), range(first, first + train.batch), step)
        done = step + 1
        seen, leave = worker.totals(own, leaving(done))
        metrics = seen[: len(METRICS)] / seen[len(METRICS) :].clamp(min=1)
        if not torch.isfinite(metrics[0]):
            raise Diverged(f"loss is {float(metrics[0])} at step {done}")
        window += metrics
        news: dict[str, float] = {}
        if done % LOG_EVERY == 0:
            news = dict(zip(METRICS, (window / LOG_EVERY).tolist(), strict=True)) | {"train/learning_rate": rate}
            window.zero_()
            curve.append({"step": done, "time": _now(), **news})
        due = done % train.evaluate_every == 0 or done == steps
        found = validate(learner, family, config, worker, parts) if due else None
        spent = clock.read()
        facts = {"step": done, "window": tuple(window.tolist()), "preempted": progress.preempted + leave}
        progress = progress.model_copy(update=facts | spent)
        if found:
            news |= found.point
            curve.append(
                {"step": done, "time": _now(), **found.point} | {f"train/{name}": t for name, t in spent.items()}
            )
            progress = _advance(progress, found.point["meta_val/score"], config)
            progress = progress.model_copy(update={"scores": found.scores, "expert_use": found.expert_use})
            report(_save(run, config, progress, learner, optimizer, curve, worker))
        stop = bool(news) and worker.any(worker.rank == 0 and live(done, news))
        if (leave or stop) and not found:
            _save(run, config, progress, learner, optimizer, curve, worker)
        if stop or progress.stopped:
            break
        if leave:
            raise Preempted(f"asked to leave its machine at step {done}")
    return progress


class Clock:
    """Time that training has taken, over all attempts: by the wall, and of this process's processors."""

    def __init__(self, before: Progress) -> None:
        self.began = time.monotonic() - before.seconds
        self.cpu_began = time.process_time() - before.cpu_seconds

    def read(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self.began, "cpu_seconds": time.process_time() - self.cpu_began}


def _now() -> int:
    """Milliseconds since 1970: kept with a point, so that delivering it again is the same delivery."""
    return time.time_ns() // 1_000_000


def _advance(before: Progress, score: float, config: ExperimentConfig) -> Progress:
    """The progress after an evaluation at its step."""
    step = before.step
    sign = 1 if higher_is_better(before.spec.output) else -1
    better = before.best_score is None or sign * score > sign * before.best_score
    stale = 0 if better else before.stale + 1
    stopped = None
    if step == config.train.steps:
        stopped = "all steps done"
    elif config.train.patience is not None and stale >= config.train.patience:
        stopped = f"plateau: {stale} evaluations without a better score"
    return before.model_copy(
        update={
            "score": score,
            "best_score": score if better else before.best_score,
            "best_step": step if better else before.best_step,
            "stale": stale,
            "stopped": stopped,
        }
    )


def _save(run, config, progress, learner, optimizer, curve, worker) -> Checkpoint:
    if worker.rank == 0:
        return checkpoint.save(run, config, progress, learner.state_dict(), state_tensors(learner, optimizer), curve)
    return Checkpoint(path=run / "checkpoints" / f"step-{progress.step:08d}")
