"""A stream without end: what one more example takes, in time and memory, after few of them and after many."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from mambacl.learners.learner import Learner, State
from mambacl.learners.registry import build as build_learner
from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.platform.cost import bytes_of
from mambacl.tasks.registry import build as build_family

NAMES = ("mamba", "attention", "mamba2", "linear_attention", "gated_deltanet")
FROM = 100
"""Examples after which a state of fixed size is to cost the same as after any other number."""

LENGTHS = (10, 100, 1_000, 10_000, 100_000)
LIMIT = 10_000
"""Examples that a learner reads whose state grows: reading them takes as many times more as there are."""

CHUNK = 1_000
"""Most examples that are read together on the way to a length."""


def rows(scope: Scope) -> Iterator[Row]:
    """One stream, of features, on one core."""
    lengths = (10, 100, 200) if scope == "tiny" else LENGTHS
    family = build_family({"name": "recall", "tasks": 20, "shots": 5})
    episode = family.episodes("meta_test", [0])
    x, y = (torch.cat([part] * (CHUNK // part.shape[1]), dim=1) for part in (episode.support_x, episode.support_y))
    for name in NAMES[:2] if scope == "quick" else NAMES:
        torch.manual_seed(0)
        yield from learner_rows(name, build_learner({"name": name}, family.spec).eval(), lengths, x, y, scope)


@torch.inference_mode()
def learner_rows(
    name: str, learner: Learner, lengths: tuple[int, ...], x: Tensor, y: Tensor, scope: Scope
) -> Iterator[Row]:
    """At each length the time of an example and the size of the state; and what has become of the former in the end."""
    fixed = learner.state_floats(1) == learner.state_floats(2)
    lengths = lengths if fixed else tuple(length for length in lengths if length <= LIMIT)
    state, read, states = learner.init_state(1), 0, {}
    for length in lengths:
        state, read = read_on(learner, state, x, y, read, length), length
        states[length] = state
    runs = [following(learner, states[length], length, x[:, 0], y[:, 0]) for length in lengths]
    # A growing state must not grow much while it is measured.
    seconds = measure(runs, 1, scope, seconds=20.0 if fixed else 0.0, repeated=fixed)
    seconds /= np.array([steps(length) for length in lengths])
    for length, column in zip(lengths, seconds.T, strict=True):
        yield Row.of(f"{name}: an example after {length:,}", "ms", 1e3 * column, 1)
        yield Row.of(f"{name}: state after {length:,}", "bytes", np.array([float(bytes_of(states[length]))]), 1)
    first, last = lengths.index(FROM), len(lengths) - 1
    grown, what = seconds[:, last] / seconds[:, first], f"{name}: time after {lengths[last]:,} to time after {FROM}"
    yield Row.of(what, "%", 100 * grown, 1, below=110) if fixed else Row.of(what, "times", grown, 1)


def read_on(learner: Learner, state: State, x: Tensor, y: Tensor, read: int, length: int) -> State:
    """The state that has read on from one number of examples to another: these over and over."""
    while read < length:
        # The last one by itself, as all are in a true stream: a state cut out of a chunk keeps the whole chunk in memory.
        count = max(1, min(x.shape[1], length - 1 - read))
        state = learner.observe(state, x[:, :count], y[:, :count])
        read += count
    return state


def steps(length: int) -> int:
    """Examples that are timed together: few beside those before them."""
    return max(1, min(length // 20, 20))


def following(learner: Learner, state: State, length: int, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Reads some examples, each time those that follow: a state that is continued a second time may have to be copied."""

    def run() -> None:
        nonlocal state
        for _ in range(steps(length)):
            state = learner.observe(state, x, y)

    return run
