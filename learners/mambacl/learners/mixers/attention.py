"""Softmax attention behind a short convolution, as the mixers of fixed state have one. Shapes: B episodes, M queries, L tokens,
D width.
"""

import torch
from torch import Tensor, nn

from mambacl.learners.cache import last
from mambacl.learners.learner import State
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.matrix import values_and_back
from mambacl.learners.mixers.mixer import Trace, start_alike, start_conv
from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.learners.mixers.softmax import SoftmaxMixer
from mambacl.learners.similarity import SHARPNESS, projection


class AttentionMixer(SoftmaxMixer):
    """Knows no positions: what stands beside a token is in the token itself, after the convolution."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        D, self.window = config.width, config.window
        self.conv = ShortConv(D, config) if config.short_conv else None
        start_alike(self.in_proj.weight[:D], self.in_proj.weight[D : 2 * D])
        start_alike(self.in_proj.bias[:D], self.in_proj.bias[D : 2 * D])

    @torch.no_grad()
    def start_by_similarity(self, features: int) -> None:
        """Fresh logits are SHARPNESS times a cosine."""
        H, F, D = self.heads, features, self.in_proj.weight.shape[1]
        P = D // H
        assert self.conv
        start_conv(self.conv, slice(F))
        nn.init.zeros_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        keys = torch.cat([projection(P, F) for _ in range(H)]) * (SHARPNESS * P**0.5 / D) ** 0.5
        self.in_proj.weight[:D, :F] = self.in_proj.weight[D : 2 * D, :F] = keys
        values, back = values_and_back(H, P, D - F)
        self.in_proj.weight[2 * D :, F:] = values
        nn.init.zeros_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        self.out_proj.weight[F:] = back

    def first(self, state: State) -> int:
        return int(state["tokens"] - state["key"]["length"]) if self.window else 0

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        if not self.window:
            return None
        distance = (query.unsqueeze(-1) - key.unsqueeze(-2)).unsqueeze(-3)
        return torch.where(distance < self.window, 0.0, -torch.inf).to(self.in_proj.weight.dtype)

    def init_state(self, batch_size: int) -> State:
        state = super().init_state(batch_size)
        state |= {"conv": self.conv.init_state(batch_size)} if self.conv else {}
        return state | ({"tokens": torch.tensor(0)} if self.window else {})

    def state_floats(self, tokens: int) -> int:
        held = min(tokens, self.window - 1) if self.window else tokens
        return super().state_floats(held) + (self.conv.state_floats if self.conv else 0)

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        tail = {}
        if self.conv:
            x_BLD, tail["conv"] = self.conv.stream(x_BLD, state["conv"])
        y, after, trace = super().stream(x_BLD, state, outputs)
        if self.window:
            after |= {name: last(after[name], self.window - 1) for name in ("key", "value")}
            after["tokens"] = state["tokens"] + x_BLD.shape[1]
        return y, after | tail, trace

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        return super().read(self.conv.read(x_BMD, state["conv"]) if self.conv else x_BMD, state)
