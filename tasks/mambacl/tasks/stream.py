"""How an episode is assembled: which of the examples that were drawn stands where in the stream, and when queries are asked.

Shapes: B episodes, G tasks drawn, R examples drawn of each, T support examples, M queries, N = T + M.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from mambacl.tasks.episode import Episode
from mambacl.tasks.family_config import FamilyConfig, Objective
from mambacl.tasks.randomness import Split, generator
from mambacl.tasks.stream_config import StreamConfig

Rng = Callable[[str], Generator]
"""The random numbers of an episode for a purpose."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Of B episodes, where the examples stand that were drawn for them: example r of drawn task g is number g R + r."""

    examples: np.ndarray
    """(B, N): the support examples in stream order, then those that are asked for."""
    support_task: np.ndarray
    """(B, T): tasks by order of first appearance."""
    query_task: np.ndarray
    """(B, M): the same; -1 for a task that the stream does not have."""
    query_after: np.ndarray
    """(B, M)."""
    label_of: np.ndarray
    """(B, T): the place in the stream whose label each support example bears: its own, unless labels are wrong."""

    def pick(self, drawn: np.ndarray) -> np.ndarray:
        """Values of the drawn examples (B, G R, ...) at their places, (B, N, ...)."""
        return drawn[np.arange(len(drawn))[:, None], self.examples]

    def episode(self, x: Tensor, y: Tensor, indices: Sequence[int], objective: Objective) -> Episode:
        """The episodes with these inputs (B, N, *shape) and targets (B, N) or (B, N, size)."""
        B, T = self.support_task.shape
        return Episode(
            support_x=x[:, :T],
            support_y=y[torch.arange(B).unsqueeze(1), torch.from_numpy(self.label_of)],
            support_task=torch.from_numpy(self.support_task),
            query_x=x[:, T:],
            query_y=y[:, T:],
            query_task=torch.from_numpy(self.query_task),
            query_after=torch.from_numpy(self.query_after),
            index=torch.tensor(list(indices)),
            objective=objective,
        )


def lay_out(config: FamilyConfig, split: Split, indices: Sequence[int], replaced: int = 0) -> Layout:
    """Where the drawn tasks go: 0..K-1 are asked for, then come distractors, then tasks that the stream does not have.

    replaced: so many of the last distractors stand before task 0, 1, ... each, whose examples come after all of theirs.
    """
    drawn_by_number = config.stream != StreamConfig() or config.streamed != config.tasks
    one = [_lay_out(config, split, index, replaced) for index in (indices if drawn_by_number else indices[:1])]
    fields = (np.stack(part) for part in zip(*one, strict=True))
    return Layout(*(part if drawn_by_number else part.repeat(len(indices), axis=0) for part in fields))


def _lay_out(config: FamilyConfig, split: Split, index: int, replaced: int) -> tuple[np.ndarray, ...]:
    """The fields of a Layout for one episode."""

    def rng(purpose: str) -> Generator:
        # A stream of random numbers for each purpose: an option leaves the others' choices as they are.
        return generator(config.seed, f"{split} {purpose}", index)

    shots = _shots(config, rng)
    task = _order(config, shots, rng)
    for new, old in enumerate(range(config.streamed - replaced, config.streamed)):
        places = np.flatnonzero((task == old) | (task == new))
        task[places] = np.where(np.arange(len(places)) < shots[old], old, new)
    by_task = np.argsort(task, kind="stable")
    begin = np.cumsum(shots) - shots
    example = np.empty_like(task)
    example[by_task] = np.arange(len(task)) - begin[task[by_task]]
    first, last = by_task[begin], by_task[begin + shots - 1]
    number = np.argsort(np.argsort(first))

    most, Q = config.shot_range[1], config.queries
    R = most + Q
    asked = np.argsort(number[: config.tasks]).repeat(Q)
    unknown = np.arange(config.streamed, config.drawn).repeat(Q)
    query = np.concatenate([asked, unknown]) * R + most + np.tile(np.arange(Q), config.tasks + config.stream.open_set)
    return (
        np.concatenate([task * R + example, query]),
        number[task],
        np.concatenate([number[asked], np.full_like(unknown, -1)]),
        _query_after(config, last, np.concatenate([last[asked], np.full_like(unknown, -1)]), rng),
        _label_of(config, task, by_task, begin, shots, rng),
    )


def _shots(config: FamilyConfig, rng: Rng) -> np.ndarray:
    """Shots of each task in the stream, (streamed,): within their range, and T in all."""
    low, high = config.shot_range
    if low == high:
        return np.full(config.streamed, config.shots)
    draw = rng("shots")
    shots = draw.integers(low, high + 1, config.streamed)
    while extra := shots.sum() - config.examples:
        room = np.flatnonzero(shots > low if extra > 0 else shots < high)
        shots[draw.choice(room, min(len(room), abs(extra)), replace=False)] -= np.sign(extra)
    return shots


def _order(config: FamilyConfig, shots: np.ndarray, rng: Rng) -> np.ndarray:
    """The drawn task of each place in the stream, (T,)."""
    stream, tasks = config.stream, np.arange(config.tasks)
    if others := config.streamed - config.tasks:
        places = np.sort(rng("distractors").choice(config.streamed, others, replace=False))
        tasks = np.insert(tasks, places - np.arange(others), np.arange(config.tasks, config.streamed))
    if stream.order == "revisits":
        draw, visits = rng("order"), []
        for visit in range(stream.visits):
            block = shots // stream.visits + (visit < shots % stream.visits)
            visits.append(np.repeat(tasks, block[tasks]))
            tasks = draw.permutation(tasks)
        return np.concatenate(visits)
    blocks = np.repeat(tasks, shots[tasks])
    return rng("order").permutation(blocks) if stream.order == "shuffled" else blocks


def _query_after(config: FamilyConfig, last: np.ndarray, earliest: np.ndarray, rng: Rng) -> np.ndarray:
    """The place in the stream after which each query is asked, (M,). last: of each task in the stream; earliest: (M,)."""
    if config.stream.query_after == "end":
        return np.full(len(earliest), config.examples - 1)
    ends = np.sort(last)
    return ends[rng("query places").integers(np.searchsorted(ends, earliest), len(ends))]


def _label_of(config: FamilyConfig, task, by_task, begin, shots, rng: Rng) -> np.ndarray:
    """Layout.label_of (T,): wrong labels are those of any example of another task."""
    own = np.arange(len(task))
    if not config.stream.label_noise or len(shots) == 1:
        return own
    draw = rng("label noise")
    wrong, share = draw.random(len(task)) < config.stream.label_noise, draw.random(len(task))
    # One of the places in the order of `by_task`, past those of the own task.
    other = (share * (len(task) - shots[task])).astype(np.int64)
    other += np.where(other >= begin[task], shots[task], 0)
    return np.where(wrong, by_task[other], own)
