"""Performer mixer (Choromanski et al., 2021, "Rethinking Attention with Performers"): FAVOR+ features in linear attention.

    phi(x)_i = exp(w_i . x' - |x'|^2 / 2) / sqrt(K),   x' = x / P^(1/4),   so that E phi(q) . phi(k) = exp(q . k / sqrt(P))
Shapes: H heads, L tokens, P width of a head before the features, K features.
"""

import torch
from torch import Tensor

from mambacl.learners.mixers.linear_attention import LinearAttentionMixer
from mambacl.learners.mixers.performer_config import PerformerConfig

EPSILON = 1e-6
"""Added to features, so that a row's sum is never zero."""


class PerformerMixer(LinearAttentionMixer):
    """Positive features along orthogonal directions, which are saved with the weights."""

    def __init__(self, config: PerformerConfig) -> None:
        P = config.key_width or config.expand * config.width // config.heads
        super().__init__(config, key_width=P)
        self.redraw = config.redraw
        self.directions: Tensor
        self.register_buffer("directions", orthogonal(config.state_size, P))

    def before_step(self, step: int) -> None:
        if self.redraw and step and step % self.redraw == 0:
            self.directions.copy_(orthogonal(*self.directions.shape))

    def features(self, x_BHLP: Tensor, query: bool) -> Tensor:
        x = x_BHLP * x_BHLP.shape[-1] ** -0.25
        log = x @ self.directions.T - 0.5 * x.square().sum(-1, keepdim=True)
        # exp(log) of keys stays below exp(|w|^2 / 2), far from overflow; that of queries needs no more than its ratios.
        log = log - log.amax(-1, keepdim=True).detach() if query else log
        return (log.exp() + EPSILON) * len(self.directions) ** -0.5


def orthogonal(count: int, size: int) -> Tensor:
    """Directions (count, size), orthogonal in blocks of `size`, each as long as a row of independent normal numbers."""
    blocks = [torch.linalg.qr(torch.randn(size, size))[0].T for _ in range(-(-count // size))]
    return torch.cat(blocks)[:count] * torch.randn(count, size).norm(dim=1, keepdim=True)
