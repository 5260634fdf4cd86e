"""How a benchmark measures: warmed up and repeated, functions that are compared in turns, medians with quartiles."""

import dataclasses
from collections.abc import Callable, Sequence
from timeit import timeit
from typing import Self

import numpy as np
import torch
from torch.utils.benchmark.utils.timer import timer

ROUNDS = 5
"""Fewest repetitions, however long one takes."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of a benchmark."""

    what: str
    unit: str = ""
    median: float | None = None
    """None where it could not be measured; `note` says why."""
    low: float | None = None
    """The lower quartile of all repetitions."""
    high: float | None = None
    """The upper quartile."""
    repetitions: int = 0
    threads: int = 0
    """Of torch."""
    target: str | None = None
    """What the median is to be, such as `< 10 ms`, or None."""
    met: bool | None = None
    """Whether it is."""
    note: str = ""

    @classmethod
    def of(
        cls,
        what: str,
        unit: str,
        values: np.ndarray,
        threads: int,
        below: float | None = None,
        above: float | None = None,
    ) -> Self:
        """The figure of some repetitions (R,), with a target that it is to stay below or get above."""
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        target, met = None, None
        if below is not None:
            target, met = f"< {below:g} {unit}", median < below
        elif above is not None:
            target, met = f"> {above:g} {unit}", median > above
        return cls(what, unit, median, low, high, len(values), threads, target, met)


def measure(runs: Sequence[Callable[[], object]], threads: int, seconds: float) -> np.ndarray:
    """Seconds that each function takes, (R, functions), on so many threads of torch: R rounds that last `seconds` at least.

    The functions take turns, so that what else the machine does hits all alike and their ratio in a round means something;
    torch's own Timer repeats one function at a time. A first round, in which kernels are compiled and caches filled, does
    not count.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for run in runs:
            run()
        rounds: list[list[float]] = []
        while len(rounds) < ROUNDS or np.sum(rounds) < seconds:
            rounds.append([timeit(run, timer=timer, number=1) for run in runs])
    finally:
        torch.set_num_threads(before)
    return np.array(rounds)
