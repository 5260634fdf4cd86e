"""The contract of every learner: a parallel face and a streaming face that agree.

Shapes: B episodes, T support examples, M queries, L tokens, H heads, V label codes.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec

Normalisation = Literal["softmax", "linear"]
"""How a row of association scores becomes shares of 1: by softmax, or each magnitude by their sum."""

State = dict[str, Any]
"""All that a learner carries from one example to the next: a pytree (dicts and lists) of tensors."""


@dataclasses.dataclass(frozen=True)
class Association:
    """How strongly each query reads each token of the stream, in one layer."""

    layer: int
    scores: Tensor
    """(B, H, M, L) raw scores that the regulariser works on; -inf where a query cannot see a token."""
    weights: Tensor | None
    """(B, M, L) magnitude of what truly multiplies the values, rows summing to 1; None unless asked for."""
    example: Tensor
    """(L,) int64: the support example of each token."""
    labelled: Tensor
    """(L,) bool: the token holds its example's label."""
    normalisation: Normalisation = "softmax"
    """How the learner itself turns rows of these scores into shares, or would."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Answers to M queries."""

    prediction: Tensor
    """(B, M, V) logits over label codes, or (B, M, size) values."""
    associations: tuple[Association, ...] = ()
    """One for each layer asked for."""
    balance: Tensor | None = None
    """(B,) load-balance loss of each episode, summed over layers; None without experts."""
    expert_use: tuple[Tensor, ...] = ()
    """For each layer with experts (B, M, E): 1 where a query went to an expert, else 0."""


class Learner(nn.Module, ABC):
    """Reads a stream of labelled examples into a state, and answers queries from a copy of it.

    A learner implements `init_state`, `observe`, `predict` and `state_floats`; `forward` follows from them.
    """

    spec: Spec

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def layers(self) -> int:
        """Layers with association maps; 0 for a learner without."""
        return 0

    @property
    def trainable(self) -> bool:
        """Whether there is anything to meta-train; references have nothing."""
        return next(self.parameters(), None) is not None

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The state before the first example, for `batch_size` streams side by side."""

    @abstractmethod
    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        """The state after one more example, x (B, *shape) and y (B,) or (B, size), or after a chunk of the
        stream, x (B, T, *shape) and y (B, T) or (B, T, size). The state passed in stays valid.

        Examples have no number, so there is no noise inside the learner here, nor in `predict`: with that of an episode,
        `absorb` and `answer` stream what `inputs` gives."""

    @abstractmethod
    def predict(self, state: State, x: Tensor) -> Output:
        """Answers to queries x (B, M, *shape), each from a copy of the state: none sees another, the state stays."""

    @abstractmethod
    def state_floats(self, examples: int) -> int:
        """How many numbers the state of one stream holds after that many examples."""

    def forward(
        self, episode: Episode, state: State | None = None, *, layers: Sequence[int] = (), exact: bool = False
    ) -> Output:
        """Read the whole stream and answer all queries; equal to `observe` one by one, then `predict`.

        state: where the stream starts from, by default `init_state`. layers: those whose associations to return
        (negative numbers count from the last); exact: with their true weights. Learners without associations
        raise ConfigError when asked for them.
        """
        if layers:
            raise ConfigError(f"layers: {type(self).__name__} has no association maps")
        state = self.init_state(len(episode.index)) if state is None else state
        support, asked = self.inputs(episode)
        answers = []
        for start, stop, queries in attachments(episode.query_after):
            state = self.absorb(state, support[:, start:stop], episode.support_y[:, start:stop])
            answers.append(self.answer(state, take(asked, queries)))
        return Output(untake(answers, episode.query_after))

    def inputs(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """What `absorb` and `answer` take of the support examples (B, T, ...) and the queries (B, M, ...): here they
        themselves. A learner that encodes each example by itself does so here, and adds the episode's noise."""
        if episode.noise is not None:
            raise ConfigError(f"task.noise.site: {type(self).__name__} has no {episode.noise.site!r}; allowed: pixel")
        return episode.support_x, episode.query_x

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        """`observe` for a chunk of what `inputs` gives."""
        return self.observe(state, x, y)

    def answer(self, state: State, x: Tensor) -> Tensor:
        """The predictions of `predict` for queries as `inputs` gives them."""
        return self.predict(state, x).prediction

    def scan_flops(self, examples: int) -> int:
        """Floating-point operations to observe examples beside products of matrices, which can be counted from outside."""
        return 0

    def read_flops(self, queries: int) -> int:
        """The same for answering queries."""
        return 0

    def before_step(self, step: int) -> None:
        """Called before each training step, counted from 0, for what changes on a schedule; the global random numbers are
        then seeded by run and step, alike on all workers."""

    def chunk(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Give one example the time axis that a chunk has."""
        one = x.ndim == 1 + len(self.spec.shape)
        return (x.unsqueeze(1), y.unsqueeze(1)) if one else (x, y)


def bounded(prediction: Tensor, spec: Spec) -> Tensor:
    """Predictions of a trained network, through tanh where the targets lie in -1..1."""
    return prediction.tanh() if spec.bounded else prediction


def attachments(query_after: Tensor) -> list[tuple[int, int, Tensor | None]]:
    """Cut the stream where queries attach: (start, stop, queries) with queries asked after example stop - 1.

    query_after: (B, M). queries: (B, m) query numbers of each episode, or None for all of them in order. Episodes
    with fewer queries at a point than the others have their last one again, which `untake` leaves out.
    """
    points = query_after.unique().tolist()
    if len(points) == 1:
        return [(0, points[0] + 1, None)]
    parts, start = [], 0
    for point in points:
        here = query_after == point
        most = int(here.sum(1).max())
        # Numbers of the queries that attach here first, in order; the rest of the row is filler.
        parts.append((start, point + 1, (~here).int().argsort(dim=1, stable=True)[:, :most]))
        start = point + 1
    return parts


def take(values: Tensor, queries: Tensor | None) -> Tensor:
    """The chosen queries (B, m) of values (B, M, ...)."""
    if queries is None:
        return values
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), queries]


def untake(parts: list[Tensor], query_after: Tensor) -> Tensor:
    """Put answers (B, m, ...) made at each point of `attachments` back in the order of the queries (B, M, ...)."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.cat(parts, dim=1)
    points = query_after.unique()
    here = query_after.unsqueeze(0) == points[:, None, None]  # (points, B, M)
    first = torch.tensor([0, *(part.shape[1] for part in parts)], device=joined.device).cumsum(0)[:-1]
    rank = here.int().cumsum(dim=2) - 1
    place = torch.where(here, rank + first[:, None, None], 0).sum(0)  # (B, M)
    return take(joined, place)
