"""Queries of an evaluation: all read from one state, beside a copy of the stream for each, as they are without a state to read."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mambacl.learners.learner import Learner
from mambacl.learners.registry import build as build_learner
from mambacl.platform.benchmarks.measure import Row, Scope, differs
from mambacl.platform.benchmarks.sides import Side, Sides
from mambacl.tasks.episode import Episode
from mambacl.tasks.registry import build as build_family

LEARNERS = ("mamba", "attention")


def rows(scope: Scope) -> Iterator[Row]:
    """Episodes of 20 x 5 with 100 queries, of features: an encoder costs both sides the same."""
    tasks, shots, episodes = (3, 2, 2) if scope == "tiny" else (20, 5, 16)
    task, threads = {"name": "recall", "tasks": tasks, "shots": shots, "queries": shots}, torch.get_num_threads()
    with Sides(threads) as sides:
        for name in LEARNERS:
            what = f"{name}, {episodes} episodes of {tasks * shots} queries"
            ways = {"together": together, "copied": replicated}
            found = sides.make({way: partial(side, name, task, episodes, read) for way, read in ways.items()})
            if differs(found["together"][0], found["copied"][0]):
                yield Row(what, note="a copy of the stream for each query answers otherwise")
                continue
            one, many = sides.measure([*ways], scope, seconds=5.0).values()
            yield Row.of(f"{what}: from one state", "ms", 1e3 * one, threads)
            yield Row.of(f"{what}: from copies of the stream", "ms", 1e3 * many, threads)
            yield Row.of(f"{what}: times faster", "x", many / one, threads, above=20)


def side(name: str, task: dict[str, Any], episodes: int, read: Callable[[Learner, Episode], Tensor]) -> Side:
    """A fresh learner that answers in one of the two ways."""
    family = build_family(task)
    episode = family.episodes("meta_test", range(episodes))
    torch.manual_seed(0)
    learner = build_learner({"name": name}, family.spec).eval()
    torch.nn.init.normal_(learner.head.weight)  # type: ignore[arg-type]  # a fresh head answers nothing
    reading = torch.inference_mode()(partial(read, learner, episode))
    return Side(reading, [reading()])


def together(learner: Learner, episode: Episode) -> Tensor:
    """Predictions (B, M, V) from one state of each episode."""
    return learner(episode).prediction


def replicated(learner: Learner, episode: Episode) -> Tensor:
    """Predictions (B, M, V) by a stream for each query, those of one episode at a time; encoded once, whatever is copied."""
    support, asked = learner.inputs(episode)
    found = []
    for tokens, y, queries in zip(support, episode.support_y, asked, strict=True):
        M = len(queries)
        state = learner.absorb(learner.init_state(M), tokens.expand(M, *tokens.shape), y.expand(M, *y.shape))
        found.append(learner.answer(state, queries.unsqueeze(1)).squeeze(1))
    return torch.stack(found)
