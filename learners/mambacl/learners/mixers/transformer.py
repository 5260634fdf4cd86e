"""The mixer of a standard transformer (Vaswani et al., 2017): softmax attention that knows where tokens stand.

Sinusoidal positions are added to the tokens once, before the first block (sequence.py); here are those that act on queries, keys
and logits. Shapes: B episodes, M queries, L tokens, H heads, P width of a head.
"""

import math

import torch
from torch import Tensor

from mambacl.learners.mixers.softmax import SoftmaxMixer
from mambacl.learners.mixers.transformer_config import TransformerConfig

LENGTH = 200
"""Visible tokens with which logits that grow with the length are as they are without: those of 20 tasks x 5 shots."""


class TransformerMixer(SoftmaxMixer):
    """Query and key weights start independently, and there is no convolution."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.rotary, self.alibi = config.positions == "rotary", config.positions == "alibi"
        self.log_length = config.log_length

    def place(self, q_BHLP: Tensor, k_BHLP: Tensor, position_L: Tensor) -> tuple[Tensor, Tensor]:
        if self.rotary:
            q_BHLP, k_BHLP = rotate(q_BHLP, position_L), rotate(k_BHLP, position_L)
        if self.log_length:  # of the tokens before a token and of itself
            q_BHLP = q_BHLP * ((position_L + 1).double().log() / math.log(LENGTH)).unsqueeze(1).to(q_BHLP.dtype)
        return q_BHLP, k_BHLP

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        """Linear biases (Press et al., 2022, "Train Short, Test Long"): less by 2^(-8 h / H) a token of distance, h = 1..H."""
        if not self.alibi:
            return None
        slope_H = 2.0 ** (-8 / self.heads * torch.arange(1, self.heads + 1, device=key.device, dtype=torch.float64))
        distance = (key.unsqueeze(-2) - query.unsqueeze(-1)).unsqueeze(-3)
        return (slope_H.view(-1, 1, 1) * distance).to(self.in_proj.weight.dtype)


def rotate(x_BHLP: Tensor, position_L: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021, "RoFormer"): turn pairs of channels by angles proportional to position."""
    half = x_BHLP.shape[-1] // 2
    rate = 10_000.0 ** (-torch.arange(half, device=x_BHLP.device, dtype=torch.float64) / half)
    angle_LP = position_L.double().unsqueeze(1) * rate
    cos, sin = angle_LP.cos().to(x_BHLP.dtype), angle_LP.sin().to(x_BHLP.dtype)
    a, b = x_BHLP.split(half, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
