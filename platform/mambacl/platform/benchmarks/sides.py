"""Sides of a comparison, each in a process of its own: none works in the memory that another has left behind."""

import contextlib
import dataclasses
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mambacl.platform.benchmarks.measure import TURNS, Scope, in_turns, turn


@dataclasses.dataclass(frozen=True)
class Side:
    """What a process times."""

    run: Callable[[], object]
    answers: Sequence[Tensor]
    """What the other sides are to find, too."""


Make = Callable[[], Side]
"""Runs in the side's process, to which it is sent: a function of a module, or a partial of one."""


class Sides(contextlib.ExitStack):
    """Processes of sides by their names, with so many threads of torch; they end with this context.

    They are no forks of this process: in those, kernels keep clear of OpenMP.
    """

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._threads, self._processes = threads, {}

    def make(self, makes: Mapping[str, Make]) -> dict[str, Sequence[Tensor]]:
        """What each of these finds. One that has the name of an earlier one takes its place, in its process."""
        for name in makes.keys() - self._processes.keys():
            process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            self._processes[name] = self.enter_context(process)
        made = {name: self._processes[name].submit(_made, make, self._threads) for name, make in makes.items()}
        return {name: [torch.from_numpy(answer) for answer in answers.result()] for name, answers in made.items()}

    def measure(self, names: Sequence[str], scope: Scope, seconds: float) -> dict[str, np.ndarray]:
        """Seconds that each of these takes, (R,), in rounds that last `seconds` at least: as the function `measure`."""
        turns = [lambda name=name: self._processes[name].submit(_turn, TURNS[scope]).result() for name in names]
        return dict(zip(names, in_turns(turns, scope, seconds).T, strict=True))


# ---- in a side's process ----

_run: Callable[[], object]


def _made(make: Make, threads: int) -> list[np.ndarray]:
    global _run
    torch.set_num_threads(threads)
    side = make()
    _run = side.run  # and not the answers: what their gradients need is not to be in memory while others are timed
    return [answer.detach().numpy() for answer in side.answers]


def _turn(least: float) -> float:
    return turn(_run, least)
