"""MesaNet mixer (von Oswald et al., 2025, "MesaNet: Sequence Modeling by Locally Optimal Test-Time Training").

    G_t = a_t G_{t-1} + b_t k_t k_t^T    S_t = a_t S_{t-1} + b_t k_t v_t^T    y_t = S_t^T (G_t + Lambda)^-1 q_t
Shapes: B episodes, L tokens, D width, E inner width, H heads, K key size, V = E / H value size.
"""

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.learner import State
from mambacl.learners.mixers.gated_deltanet import GatedDeltaNetMixer, unit
from mambacl.learners.mixers.mesanet_config import MesaNetConfig
from mambacl.learners.mixers.mixer import Trace
from mambacl.learners.scan import matrix
from mambacl.learners.scan.writes import Writes
from mambacl.learners.undecayed import undecayed

LEAST = 0.25
"""Smallest regularisation, as in the paper's layers."""


class MesaNetMixer(GatedDeltaNetMixer):
    """Projections and gates of Gated DeltaNet; instead of erasing, the keys' second moments are kept and solved for."""

    erase = False

    def __init__(self, config: MesaNetConfig) -> None:
        super().__init__(config)
        self.ridge = undecayed(torch.full((self.heads, self.keys), math.log(math.expm1(config.ridge - LEAST))))

    def init_state(self, batch_size: int) -> State:
        return super().init_state(batch_size) | {
            "G": self.ridge.new_zeros(batch_size, self.heads, self.keys, self.keys)
        }

    def state_floats(self, tokens: int) -> int:
        return super().state_floats(tokens) + self.heads * self.keys**2

    def run(self, w: Writes, state: State, after: State) -> tuple[Tensor | None, Trace]:
        kept, w = self.packed(w), unit(w)
        moments = dataclasses.replace(w, query=None, value=w.key)
        if w.query is not None:
            w = dataclasses.replace(w, query=self.solve(matrix.states(moments, state["G"]), w.query))
        after["G"] = matrix.scan(moments, state["G"], self.kernel)[1]
        y, after["S"] = matrix.scan(w, state["S"], self.kernel)
        return y, kept

    def ask(self, w: Writes, state: State) -> tuple[Tensor, Trace]:
        return matrix.read(self.solved(unit(w), state["G"]), state["S"]), self.packed(w)

    def solved(self, w: Writes, G: Tensor) -> Writes:
        """Queries solved for the moments G (B, H, K, K), to which each adds its own as the one next token."""
        assert w.query is not None
        assert w.log_decay is not None
        assert w.strength is not None
        own = w.strength[..., None, None] * w.key.unsqueeze(-1) * w.key.unsqueeze(-2)
        return dataclasses.replace(w, query=self.solve(w.log_decay.exp().unsqueeze(-1) * G.unsqueeze(2) + own, w.query))

    def solve(self, G: Tensor, q: Tensor) -> Tensor:
        """(G + Lambda)^-1 q for G (B, H, L, K, K) and q (B, H, L, K)."""
        ridge = torch.diag_embed(F.softplus(self.ridge) + LEAST).unsqueeze(1)
        factor = torch.linalg.cholesky_ex(G + ridge).L
        return torch.cholesky_solve(q.unsqueeze(-1), factor).squeeze(-1)

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        stream, asked = self.unpacked(tokens), self.unpacked(queries)
        empty = stream.key.new_zeros(*stream.key.shape[:2], self.keys, self.keys)
        G = matrix.scan(dataclasses.replace(stream, query=None, value=stream.key), empty, "chunked")[1]
        return matrix.weights(stream, self.solved(asked, G))[:, groups]
