"""How a benchmark measures: warmed up and repeated, functions that are compared in turns, medians with quartiles."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
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
"""Fewest repetitions, within LIMITS."""

SHARES: dict[Scope, float] = {"full": 1.0, "quick": 0.1, "tiny": 0.0}
"""Of the seconds that repetitions go on for in full."""

LIMITS: dict[Scope, float] = {"full": float("inf"), "quick": 20.0, "tiny": float("inf")}
"""Seconds after which no further repetition begins."""

TURNS: dict[Scope, float] = {"full": 0.25, "quick": 0.25, "tiny": 0.0}
"""Seconds of a turn, in which a function that takes less is repeated."""

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


def measure(
    runs: Sequence[Callable[[], object]], threads: int, scope: Scope, seconds: float, repeated: bool = True
) -> np.ndarray:
    """Seconds that each function takes, (R, functions), on so many threads of torch, in this process: R rounds that last
    `seconds` at least, or in a smaller scope their share of it.

    repeated: whether a turn is more than one call, where a call is short.
    """
    before, least = torch.get_num_threads(), TURNS[scope] if repeated else 0.0
    torch.set_num_threads(threads)
    try:
        return in_turns([partial(turn, run, least) for run in runs], scope, seconds)
    finally:
        torch.set_num_threads(before)


def in_turns(turns: Sequence[Callable[[], float]], scope: Scope, seconds: float) -> np.ndarray:
    """What each turn found, (R, turns), in rounds: what else the machine does hits all alike, and their ratio in a round means
    something; torch's own Timer repeats one function at a time. A first round, in which kernels are compiled and caches
    filled, does not count."""
    for each in turns:
        each()
    rounds: list[list[float]] = []
    begun, passed = time.monotonic(), 0.0
    while (len(rounds) < ROUNDS[scope] or passed < SHARES[scope] * seconds) and passed < LIMITS[scope]:
        rounds.append([each() for each in turns])
        passed = time.monotonic() - begun
    return np.array(rounds)


def turn(run: Callable[[], object], least: float) -> float:
    """Seconds that a call takes. Where that is less than `least`, of the calls that fit into it after a first one, which finds
    caches and threads as another side's turn has left them: a learner in training takes one step after another."""
    first = timeit(run, timer=timer, number=1)
    number = int(least / first)
    return timeit(run, timer=timer, number=number) / number if number else first


def differs(found: Tensor, expected: Tensor) -> bool:
    """Whether a side has found something else than it should; what is no number is something else."""
    return not (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
