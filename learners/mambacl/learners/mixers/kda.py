"""Kimi delta attention mixer (Kimi team, 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture").

    S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T          y_t = S_t^T q_t
Shapes: L tokens, D width, E inner width, H heads, K key size.
"""

from torch import Tensor, nn

from mambacl.learners.fused import Linear
from mambacl.learners.mixers.gated_deltanet import GatedDeltaNetMixer
from mambacl.learners.mixers.mixer import biased


class KdaMixer(GatedDeltaNetMixer):
    """A gated delta rule whose decay is a vector a head, from a projection of low rank, with a sigmoid gate."""

    @property
    def decays(self) -> int:
        return self.heads * self.keys

    def gate_of_steps(self, width: int) -> nn.Module:
        rank = self.inner // self.heads
        return nn.Sequential(Linear(width, rank, bias=False), Linear(rank, self.decays, bias=False))

    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        return self.out_proj(self.normalise(y_BLE) * biased(self.gate(x_BLD), self.gate_bias).sigmoid())
