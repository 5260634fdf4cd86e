"""How a benchmark measures: warmed up and repeated, functions that are compared in turns, medians with quartiles."""

import dataclasses
from collections.abc import Callable, Sequence
from timeit import timeit
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark.utils.timer import timer

Scope = Literal["full", "quick", "tiny"]
"""What is measured. full: everything. quick: what has a target and what that is compared with, at the same sizes but with few
repetitions, so that all benchmarks together take minutes. tiny: everything at sizes that say nothing of speed, to see that it
works; no target is met or missed."""

ROUNDS: dict[Scope, int] = {"full": 5, "quick": 3, "tiny": 3}
"""Fewest repetitions, however long one takes."""

SHARES: dict[Scope, float] = {"full": 1.0, "quick": 0.1, "tiny": 0.0}
"""Of the seconds that repetitions go on for in full."""

RATIOS = ("x", "%")
"""Units of what was measured beside something else in one run, and so can be compared with another run."""

TOLERANCE = 1e-3
"""Of numbers in float32, as a share of the largest: sides that differ by more are not compared."""


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


def measure(runs: Sequence[Callable[[], object]], threads: int, scope: Scope, seconds: float) -> np.ndarray:
    """Seconds that each function takes, (R, functions), on so many threads of torch: R rounds that last `seconds` at least,
    or in a smaller scope their share of it.

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
        while len(rounds) < ROUNDS[scope] or np.sum(rounds) < SHARES[scope] * seconds:
            rounds.append([timeit(run, timer=timer, number=1) for run in runs])
    finally:
        torch.set_num_threads(before)
    return np.array(rounds)


def differs(found: Tensor, expected: Tensor) -> bool:
    """Whether a side has found something else than it should; what is no number is something else."""
    return not (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
