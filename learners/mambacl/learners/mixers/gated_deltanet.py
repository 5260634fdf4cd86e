"""Gated DeltaNet mixer (Yang et al., 2025, "Gated Delta Networks: Improving Mamba2 with Delta Rule").

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T          y_t = S_t^T q_t,       |k_t| = 1
Shapes: B episodes, L tokens, D width, E inner width, H heads, K key size, V = E / H value size.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused import Linear, RMSNorm, gate, softplus
from mambacl.learners.learner import State
from mambacl.learners.mixers.gated_deltanet_config import GatedDeltaNetConfig
from mambacl.learners.mixers.kda_config import KdaConfig
from mambacl.learners.mixers.matrix import Convolve, MatrixMixer, split_heads, trace, untrace
from mambacl.learners.mixers.mesanet_config import MesaNetConfig
from mambacl.learners.mixers.mixer import Trace, start_alike
from mambacl.learners.mixers.rates import log_rates, start_steps
from mambacl.learners.scan import matrix
from mambacl.learners.scan.writes import Writes


class GatedDeltaNetMixer(MatrixMixer):
    """Reads and writes with queries and keys of length 1; associations are scored before these are brought to it.

    Cosines would do for scores, too, but not for learning them: once all keys point one way their gradient is zero, and
    meta-training stays on its plateau for ever (seen on glyphs and on Omniglot within a hundred steps).
    """

    erase = True

    def __init__(self, config: GatedDeltaNetConfig | KdaConfig | MesaNetConfig) -> None:
        D, H = config.width, config.heads
        keys = H * config.state_size
        super().__init__(config, convolved=2 * keys + config.expand * D)
        self.in_proj = Linear(D, 2 * keys + self.inner, bias=False)
        self.strength = Linear(D, H, bias=False)
        self.A_log = log_rates(config.decay * torch.empty(H).uniform_(1, 16))
        self.dt_bias = nn.Parameter(torch.empty(self.decays))
        self.step = self.gate_of_steps(D)
        self.gate = Linear(D, self.inner, bias=False)
        self.norm = RMSNorm(self.inner // H, eps=1e-5)
        self.out_proj = Linear(self.inner, D, bias=False)
        start_alike(self.in_proj.weight[:keys], self.in_proj.weight[keys : 2 * keys])
        start_steps(self.dt_bias)

    @property
    def decays(self) -> int:
        """Numbers in a token's decay."""
        return self.heads

    def gate_of_steps(self, width: int) -> nn.Module:
        """Map from a token to the steps by which its heads decay."""
        return Linear(width, self.decays, bias=False)

    def writes(self, x_BLD: Tensor, convolve: Convolve, reads: bool) -> tuple[Writes, None]:
        H, keys = self.heads, self.heads * self.keys
        parts = convolve(self.in_proj(x_BLD), True).split([keys, keys, self.inner], -1)
        q, k, v = (split_heads(part, H) for part in parts)
        step_BHLP = split_heads(softplus(self.step(x_BLD), self.dt_bias), H)
        w = Writes(
            query=q if reads else None,
            key=k,
            value=v,
            log_decay=-torch.exp(self.A_log)[:, None, None] * step_BHLP,
            strength=self.strength(x_BLD).sigmoid().transpose(1, 2),
            erase=self.erase,
        )
        return w, None

    def run(self, w: Writes, state: State, after: State) -> tuple[Tensor | None, Trace]:
        y, _ = super().run(unit(w), state, after)
        return y, trace(w)

    def ask(self, w: Writes, state: State) -> tuple[Tensor, Trace]:
        y, _ = super().ask(unit(w), state)
        return y, trace(w)

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        stream, asked = (unit(untrace(kept, groups, self.erase)) for kept in (tokens, queries))
        return matrix.weights(stream, asked)

    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        return self.out_proj(gate(self.normalise(y_BLE), self.gate(x_BLD)))

    def normalise(self, y_BLE: Tensor) -> Tensor:
        """Each head's answer to length sqrt(V), times learned weights."""
        return self.norm(y_BLE.unflatten(-1, (self.heads, -1))).flatten(-2)


def unit(w: Writes) -> Writes:
    """Queries and keys brought to length 1."""
    query = None if w.query is None else F.normalize(w.query, dim=-1)
    return dataclasses.replace(w, query=query, key=F.normalize(w.key, dim=-1))
