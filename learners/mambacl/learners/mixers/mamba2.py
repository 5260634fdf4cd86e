"""Mamba-2 mixer (Dao and Gu, 2024, "Transformers are SSMs").

    S_t = exp(Delta_t A) S_{t-1} + Delta_t B_t x_t^T          y_t = S_t^T C_t + D x_t
Shapes: B episodes, L tokens, D width, E inner width, H heads, K state size, V = E / H value size.
"""

import torch
from torch import Tensor, nn

from mambacl.learners.fused import Linear, RMSNorm, gate, linear, softplus
from mambacl.learners.mixers.mamba2_config import Mamba2Config
from mambacl.learners.mixers.matrix import Convolve, MatrixMixer, split_heads, values_and_back
from mambacl.learners.mixers.mixer import biased, gate_bias, start_alike, start_conv
from mambacl.learners.mixers.rates import log_rates, start_steps
from mambacl.learners.scan.writes import Writes
from mambacl.learners.similarity import projection


class Mamba2Mixer(MatrixMixer):
    """The standard block with one group: B and C are shared by all heads, so a token has one key and one query."""

    def __init__(self, config: Mamba2Config) -> None:
        D, H, K = config.width, config.heads, config.state_size
        super().__init__(config, convolved=config.expand * D + 2 * K)
        E = self.inner
        # Rows: gate z, then x, B, C through the convolution, then Delta.
        self.in_proj = Linear(D, 2 * E + 2 * K + H, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(H))
        self.A_log = log_rates(config.decay * torch.empty(H).uniform_(1, 16))
        self.D = nn.Parameter(torch.ones(H))
        self.gate_bias = gate_bias(E, config.start)
        self.norm = RMSNorm(E, eps=1e-5)
        self.out_proj = Linear(E, D, bias=False)
        start_alike(self.in_proj.weight[2 * E + K : 2 * E + 2 * K], self.in_proj.weight[2 * E : 2 * E + K])
        start_steps(self.dt_bias)

    def writes(self, x_BLD: Tensor, convolve: Convolve, reads: bool) -> tuple[Writes, Tensor]:
        E, K, H = self.inner, self.keys, self.heads
        convolved, steps = self.in_proj.weight[E:].split([E + 2 * K, H])
        x, B, C = convolve(linear(x_BLD, convolved), self.silu).split([E, K, K], -1)
        step_BHL = softplus(linear(x_BLD, steps), self.dt_bias).transpose(1, 2)
        decay = (-torch.exp(self.A_log).unsqueeze(-1) * step_BHL).unsqueeze(-1)
        query = C.unsqueeze(1) if reads else None
        w = Writes(query, B.unsqueeze(1), split_heads(x, H), log_decay=decay, strength=step_BHL)
        return w, self.D.repeat_interleave(E // H) * x

    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        assert beside is not None
        z = biased(linear(x_BLD, self.in_proj.weight[: self.inner]), self.gate_bias)
        return self.out_proj(self.norm(gate(y_BLE + beside, z)))

    @torch.no_grad()
    def start_by_similarity(self, features: int) -> None:
        E, K, F = self.inner, self.keys, features
        W, labels = self.in_proj.weight, self.in_proj.weight.shape[1] - features
        assert self.conv
        W.zero_()
        values, back = values_and_back(self.heads, self.columns, labels)
        W[E : 2 * E, F:] = values
        W[2 * E : 2 * E + K, :F] = W[2 * E + K : 2 * E + 2 * K, :F] = F**-0.5 * projection(K, F)
        start_conv(self.conv, slice(E, E + K))
        self.out_proj.weight.zero_()
        self.out_proj.weight[F:] = back
