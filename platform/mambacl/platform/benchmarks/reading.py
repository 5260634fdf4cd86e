"""Queries of an evaluation: all read from one state, beside a copy of the stream for each, as they are without a state to read."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mambacl.learners.learner import Learner
from mambacl.learners.registry import build as build_learner
from mambacl.platform.benchmarks.measure import Row, Scope, differs, measure
from mambacl.tasks.episode import Episode
from mambacl.tasks.registry import build as build_family

LEARNERS = ("mamba", "attention")


def rows(scope: Scope) -> Iterator[Row]:
    """Episodes of 20 x 5 with 100 queries, of features: an encoder costs both sides the same."""
    tasks, shots, episodes = (3, 2, 2) if scope == "tiny" else (20, 5, 16)
    family = build_family({"name": "recall", "tasks": tasks, "shots": shots, "queries": shots})
    episode = family.episodes("meta_test", range(episodes))
    for name in LEARNERS:
        torch.manual_seed(0)
        learner = build_learner({"name": name}, family.spec).eval()
        torch.nn.init.normal_(learner.head.weight)  # type: ignore[arg-type]  # a fresh head answers nothing
        yield from learner_rows(name, learner, episode, scope)


@torch.inference_mode()
def learner_rows(name: str, learner: Learner, episode: Episode, scope: Scope) -> Iterator[Row]:
    """The two times, and their ratio."""
    B, M = episode.query_y.shape
    what, threads = f"{name}, {B} episodes of {M} queries", torch.get_num_threads()
    together, copied = learner(episode).prediction, replicated(learner, episode)
    if differs(together, copied):
        yield Row(what, note="a copy of the stream for each query answers otherwise")
        return
    one, many = measure([lambda: learner(episode), lambda: replicated(learner, episode)], threads, scope, 5.0).T
    yield Row.of(f"{what}: from one state", "ms", 1e3 * one, threads)
    yield Row.of(f"{what}: from copies of the stream", "ms", 1e3 * many, threads)
    yield Row.of(f"{what}: times faster", "x", many / one, threads, above=20)


def replicated(learner: Learner, episode: Episode) -> Tensor:
    """Predictions (B, M, V) by a stream for each query, those of one episode at a time; encoded once, whatever is copied."""
    support, asked = learner.inputs(episode)
    found = []
    for tokens, y, queries in zip(support, episode.support_y, asked, strict=True):
        M = len(queries)
        state = learner.absorb(learner.init_state(M), tokens.expand(M, *tokens.shape), y.expand(M, *y.shape))
        found.append(learner.answer(state, queries.unsqueeze(1)).squeeze(1))
    return torch.stack(found)
