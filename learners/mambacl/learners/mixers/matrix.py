"""What mixers share whose state is a matrix a head: they differ in what a token writes and how an answer leaves.

Shapes: B episodes, M queries, L tokens, D width, E inner width, H heads, K key size, V = E / H value size.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.learner import State
from mambacl.learners.mixers.matrix_config import MatrixConfig
from mambacl.learners.mixers.mixer import Mixer, Trace
from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.learners.scan import matrix
from mambacl.learners.scan.writes import Writes
from mambacl.learners.similarity import projection

Convolve = Callable[[Tensor, bool], Tensor]
"""Runs channels (B, L, ...) through the mixer's short convolution, as tokens of the stream or as queries, and then through a
SiLU if asked for."""

FIELDS = ("query", "key", "value", "log_decay", "strength")


class MatrixMixer(Mixer):
    """S_t = (I - b k k^T) diag(a) S_{t-1} + b k v^T, read by queries; see `mambacl.learners.scan.matrix`."""

    erase: ClassVar[bool] = False
    """Whether a token first takes away what is held under its key: the term in k k^T."""

    def __init__(self, config: MatrixConfig, convolved: int) -> None:
        """convolved: channels that go through the short convolution."""
        super().__init__()
        self.heads, self.keys, self.kernel = config.heads, config.state_size, config.kernel
        self.silu = config.conv_silu
        self.inner = config.expand * config.width
        self.conv = ShortConv(convolved, config) if config.short_conv else None

    @abstractmethod
    def writes(self, x_BLD: Tensor, convolve: Convolve, reads: bool) -> tuple[Writes, Tensor | None]:
        """What tokens write, and with `reads` also their queries; and what else of them `leave` needs."""

    @abstractmethod
    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        """Outputs (B, L, D) from what all heads have read."""

    @property
    def groups(self) -> int:
        return self.heads

    @property
    def columns(self) -> int:
        """Columns of a head's matrix."""
        return self.inner // self.heads

    def init_state(self, batch_size: int) -> State:
        like = next(self.parameters())
        state: State = {"S": like.new_zeros(batch_size, self.heads, self.keys, self.columns)}
        return state | ({"conv": self.conv.init_state(batch_size)} if self.conv else {})

    def state_floats(self, tokens: int) -> int:
        return self.heads * self.keys * self.columns + (self.conv.state_floats if self.conv else 0)

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        after = dict(state)  # keeps the order of the leaves: saved states are restored by it

        def convolve(channels: Tensor, silu: bool) -> Tensor:
            if self.conv is None:
                return F.silu(channels) if silu else channels
            channels, after["conv"] = self.conv.stream(channels, state["conv"], silu)
            return channels

        w, beside = self.writes(x_BLD, convolve, outputs)
        y, trace = self.run(w, state, after)
        return (None if y is None else self.leave(_joined(y), x_BLD, beside)), after, trace

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        def convolve(channels: Tensor, silu: bool) -> Tensor:
            if self.conv is None:
                return F.silu(channels) if silu else channels
            return self.conv.read(channels, state["conv"], silu)

        w, beside = self.writes(x_BMD, convolve, True)
        y, trace = self.ask(w, state)
        return self.leave(_joined(y), x_BMD, beside), trace

    def run(self, w: Writes, state: State, after: State) -> tuple[Tensor | None, Trace]:
        """What the tokens of a stream read (B, H, L, V), None without queries; `after` takes the state behind them."""
        y, after["S"] = matrix.scan(w, state["S"], self.kernel)
        return y, trace(w)

    def ask(self, w: Writes, state: State) -> tuple[Tensor, Trace]:
        """What queries read (B, H, M, V), each as the one next token."""
        return matrix.read(w, state["S"]), trace(w)

    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """q . k, (B, H, M, L), with H = 1 where the heads share them."""
        return torch.einsum("bmhk,blhk->bhml", queries["query"], tokens["key"])

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        return matrix.weights(untrace(tokens, groups, self.erase), untrace(queries, groups, self.erase))


class NormalisedMixer(MatrixMixer):
    """Answers are divided by the sum of their weights: one more column of the state, written with 1, adds them up."""

    @property
    def columns(self) -> int:
        return super().columns + 1

    def run(self, w: Writes, state: State, after: State) -> tuple[Tensor | None, Trace]:
        w, floor = self.balance(w, state, after)
        y, after["S"] = matrix.scan(_counted(w), state["S"], self.kernel)
        return (None if y is None else y[..., :-1] / _divisor(y, floor)), trace(w)

    def ask(self, w: Writes, state: State) -> tuple[Tensor, Trace]:
        w, floor = self.balance(w, state, None)
        y = matrix.read(_counted(w), state["S"])
        divisor = _divisor(y, floor)
        return y[..., :-1] / divisor, trace(w) | {"divisor": divisor.transpose(1, 2)}

    def balance(self, w: Writes, state: State, after: State | None) -> tuple[Writes, Tensor]:
        """The writes as they meet the state, and the least by which an answer is divided. `after` takes what else a
        stream leaves behind; it is None for queries."""
        return w, w.value.new_tensor(1e-9)

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        return super().weights(tokens, queries, groups) / queries["divisor"][:, :, groups].transpose(1, 2)


def _counted(w: Writes) -> Writes:
    return dataclasses.replace(w, value=F.pad(w.value, (0, 1), value=1.0))


def _divisor(y: Tensor, floor: Tensor) -> Tensor:
    return torch.maximum(y[..., -1:].abs(), floor)


def trace(w: Writes) -> Trace:
    """The fields of writes with tokens first, (B, L, H, ...)."""
    return {name: field.transpose(1, 2) for name in FIELDS if (field := getattr(w, name)) is not None}


def untrace(kept: Trace, groups: slice, erase: bool) -> Writes:
    """What `trace` has kept, for some of the heads; heads that share keys have one entry for all."""

    def part(name: str) -> Tensor:
        field = kept[name].transpose(1, 2)
        return field[:, groups] if field.shape[1] > 1 else field

    query, log_decay, strength = (part(name) if name in kept else None for name in ("query", "log_decay", "strength"))
    return Writes(query, part("key"), part("value"), log_decay, strength, erase)


def split_heads(x_BLE: Tensor, heads: int) -> Tensor:
    """Channels (B, L, H P) as heads (B, H, L, P)."""
    return rearrange(x_BLE, "b l (h p) -> b h l p", h=heads)


def values_and_back(heads: int, columns: int, labels: int) -> tuple[Tensor, Tensor]:
    """Maps (heads columns, labels) from the numbers of a label to the values of all heads, and from these to their mean."""
    maps = [projection(columns, labels) for _ in range(heads)]
    return torch.cat(maps), torch.cat(maps).T / heads


def _joined(y_BHLV: Tensor) -> Tensor:
    return rearrange(y_BHLV, "b h l v -> b l (h v)")
