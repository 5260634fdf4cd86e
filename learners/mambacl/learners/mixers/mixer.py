"""What a mixer gives: a stream's outputs and final state, the read of queries from a state, and association maps.

Shapes: B episodes, M queries, L tokens, D width, H heads, G groups of channels that share one map.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from mambacl.learners.learner import Normalisation, State
from mambacl.learners.mixers.short_conv import ShortConv

Trace = dict[str, Tensor]
"""What a mixer keeps of its tokens (B, L, ...) or queries (B, M, ...) to compute association maps."""


class Mixer(nn.Module, ABC):
    """Carries a state along the tokens; the state is differentiable, and a query never changes it."""

    normalisation: ClassVar[Normalisation] = "softmax"
    """How rows of scores become shares: by softmax, or by their sum where scores are never negative."""

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The state before the first token."""

    def scan_flops(self, tokens: int, outputs: bool) -> int:
        """Floating-point operations of the recurrence that are no products of matrices."""
        return 0

    def before_step(self, step: int) -> None:
        """Called before each training step, counted from 0, for what changes on a schedule; the global random numbers are
        then seeded by run and step."""

    @abstractmethod
    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        """Outputs (B, L, D) for the next tokens of the stream, or None where not wanted, and the state after them."""

    @abstractmethod
    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        """Outputs (B, M, D) for queries, each as if it were the one next token."""

    @abstractmethod
    def state_floats(self, tokens: int) -> int:
        """Numbers in the state of one stream after that many tokens."""

    @abstractmethod
    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """Raw association scores (B, H, M, L): the analogue of query times key, before any normalisation."""

    @abstractmethod
    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        """The signed weights (B, G, M, L) that multiply the tokens' values in the queries' outputs, exactly,
        for a slice of the groups of channels."""

    @property
    @abstractmethod
    def groups(self) -> int:
        """Number of groups of channels with a map of their own: heads, or single channels."""


OPEN = 1.278
"""Where a SiLU is 1."""


def gate_bias(width: int, start: str) -> nn.Parameter | None:
    """What is added before the SiLU of a gate: a gate whose weights start at zero is open then. None for those with random ones."""
    return nn.Parameter(torch.full((width,), OPEN)) if start == "similarity" else None


def biased(z: Tensor, bias: Tensor | None) -> Tensor:
    return z if bias is None else z + bias


@torch.no_grad()
def start_conv(conv: ShortConv, *before: slice) -> None:
    """Let these channels see the token before a token, and all others the token itself."""
    conv.weight.zero_()
    conv.weight[-1] = 1
    for channels in before:
        conv.weight[-2:, channels] = torch.tensor([[1.0], [0.0]])


@torch.no_grad()
def start_alike(query: Tensor, key: Tensor) -> None:
    """Give fresh query weights the values of the key weights, so that a query is most associated with tokens like itself.

    From independent weights, associations are noise at first, and the cheapest way to a lower loss is an encoder that makes
    all examples alike: meta-training then stays on its plateau.
    """
    query.copy_(key)
