"""What a learner costs on a machine: time in training, on whole episodes and along a stream, and memory.

Times are medians with quartiles, taken by torch.utils.benchmark: warmed up, on one thread, a GPU synchronised.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from mambacl.learners.learner import Learner, State
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.platform.config import ExperimentConfig, TrainConfig
from mambacl.platform.cost import bytes_of, peak_bytes, size_of
from mambacl.platform.machine import device, device_name, memory
from mambacl.platform.training.optimizer import build_optimizer
from mambacl.platform.training.step import Stepper
from mambacl.platform.training.worker import Worker
from mambacl.tasks.episode import Episode
from mambacl.tasks.family import Family

if TYPE_CHECKING:
    from mambacl.platform.evaluation.cells import Cell

BATCH = 16
"""Episodes that are trained on, or answered, together."""

CHUNK = 100
"""Fewest examples that are read together on the way to a length."""

SECONDS = 0.5
"""That a call is timed for, over and over."""

FEWEST = 5
"""Times at least that are taken of a call."""


def machine() -> str:
    """What times depend on beside the learner: device, threads, torch, and kernels."""
    from mambacl.learners.scan import SELECTIVE
    from mambacl.learners.scan.matrix import MATRIX

    threads = torch.get_num_threads()
    kernels = ", ".join(f"{scan.describe(device())[0]} {scan.name}" for scan in (SELECTIVE, MATRIX))
    return f"{device_name()}, {threads} thread{'s'[: threads - 1]}, torch {torch.__version__}, {kernels}"


def costs_of(cell: "Cell", family: Family, learner: Learner) -> pd.DataFrame:
    """A row for each of the stream lengths `examples` in the cell's settings, with what does not depend on the length beside it.

    Settings: `seconds` that reading to a length may take, and that asking there may take. `not_run` says why a length was
    left out, and is empty for the others.
    """
    at = device()
    with torch.inference_mode(False):  # training needs tensors that remember gradients
        episode = family.episodes(cell.point.split, range(BATCH)).to(at)
        trained = _training(cell, family, episode)
    size = dataclasses.asdict(size_of(cell.contestant.load(family), family))
    answered = _per_second("inference", lambda: learner(episode))
    found = _streaming(learner, episode, cell.settings["examples"], cell.settings["seconds"])
    return pd.DataFrame([size | trained | answered | row | {"batch": BATCH, "device": cell.machine} for row in found])


def _training(cell: "Cell", family: Family, episode: Episode) -> dict[str, float]:
    """Optimiser steps on a fresh copy, without the selectivity term; nothing for what is not meta-trained."""
    learner = cell.contestant.load(family).to(device()).train()
    if not (cell.contestant.trained and learner.trainable):
        return {}
    config = ExperimentConfig(
        name="cost",
        task=cell.task,
        learner=cell.contestant.learner,
        selectivity=SelectivityConfig(loss="none"),
        train=TrainConfig(batch=BATCH),
    )
    optimizer = build_optimizer(learner, config.train)
    stepper = Stepper(learner, optimizer, config, Worker(device=device()))

    def step() -> Tensor:
        return stepper.step(lambda numbers: episode, range(BATCH), 0)

    with torch.enable_grad():
        found = _per_second("training", step)
        held = bytes_of([list(learner.parameters()), list(optimizer.state.values())])
        return found | {"training_bytes": held + peak_bytes(step, device())}


def _streaming(learner: Learner, episode: Episode, examples: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """A row for each length of one stream: the examples of an episode over and over."""
    times = -(-CHUNK // episode.support_x.shape[1])
    x = torch.cat([episode.support_x[:1]] * times, dim=1)
    y = torch.cat([episode.support_y[:1]] * times, dim=1)
    query = episode.query_x[:1, :1]
    state, read, not_run = learner.init_state(1), 0, ""
    learner.predict(learner.observe(state, x, y), query)  # compiles what has to be compiled
    rows: list[dict[str, Any]] = []
    for length in sorted(examples):
        not_run = not_run or (_too_much(rows[-1], length, seconds) if rows else "")
        if not not_run:
            state, not_run = _read(learner, state, (read, length), x, y, seconds)
            read = length
        row = {"examples": length, "state_floats": learner.state_floats(length), "not_run": not_run}
        rows.append(row if not_run else row | _at(learner, state, length, x[:, 0], y[:, 0], query))
    return rows


def _too_much(last: dict[str, Any], length: int, seconds: float) -> str:
    """What forbids a length, as far as the last one tells: no learner's state or answer grows faster than the stream."""
    times = length / last["examples"]
    needed = 3 * times * last["peak_bytes"]  # a growing cache is copied to twice its size
    if needed > memory():
        return f"{length:,} examples may need {needed / 2**30:.0f} GiB of memory, there are {memory() / 2**30:.0f}"
    asking = (FEWEST + 1) * times * last["ms_per_query"] / 1000
    if asking > seconds:
        return f"asking after {length:,} examples may take {asking:.0f} s, more than {seconds:g}"
    return ""


def _read(
    learner: Learner, state: State, way: tuple[int, int], x: Tensor, y: Tensor, seconds: float
) -> tuple[State, str]:
    """The state after reading on to a length, or why not."""
    read, length = way
    begun = time.perf_counter()
    while read < length:
        place = read % x.shape[1]
        # The last one by itself, as all are in a true stream: a state cut out of a chunk keeps the whole chunk in memory.
        stop = min(x.shape[1], place + max(1, length - 1 - read))
        state = learner.observe(state, x[:, place:stop], y[:, place:stop])
        _synchronise()
        read += stop - place
        spent = time.perf_counter() - begun
        needed = spent * (length - way[0]) / (read - way[0])
        if spent > seconds / 10 and needed > seconds:  # the first chunks alone tell too little
            return state, f"reading {length:,} examples takes at least {needed:.0f} s, more than {seconds:g}"
    return state, ""


def _at(learner: Learner, state: State, length: int, x: Tensor, y: Tensor, query: Tensor) -> dict[str, Any]:
    """One more example, and one query, after `length` examples."""
    # A state that is continued a second time copies its cache, so a chain of new examples is timed behind a first one.
    following = Timer(
        "state = learner.observe(state, x, y)",
        "state = learner.observe(start, x, y)",
        globals={"learner": learner, "start": state, "x": x, "y": y},
    )
    number, times, deadline = max(1, min(length // 10, 10)), [], time.perf_counter() + SECONDS
    while len(times) < FEWEST or time.perf_counter() < deadline:
        times.append(following.timeit(number).median)
    ready = learner.observe(state, x, y)
    held = bytes_of(state)
    return {
        **_spread("ms_per_example", [1000 * seconds for seconds in times]),
        **_spread("ms_per_query", [1000 * seconds for seconds in _times(lambda: learner.predict(state, query))]),
        "state_bytes": held,
        "peak_bytes": held + peak_bytes(lambda: learner.predict(learner.observe(ready, x, y), query), device()),
    }


def _per_second(name: str, run: Callable[[], object]) -> dict[str, float]:
    """Episodes of a batch in a second."""
    rates = [BATCH / seconds for seconds in _times(run)]
    return _spread(f"{name}_episodes_per_second", rates)


def _times(run: Callable[[], object]) -> list[float]:
    """Seconds of calls, one after the other."""
    return (
        Timer("run()", globals={"run": run}).adaptive_autorange(min_run_time=SECONDS, max_run_time=10 * SECONDS).times
    )


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    middle, low, high = np.percentile(values, [50, 25, 75])
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def _synchronise() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()
