"""Gated DeltaNet mixer (Yang et al., 2025, "Gated Delta Networks: Improving Mamba2 with Delta Rule").

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T          y_t = S_t^T q_t,       |k_t| = 1
b reaches 1, or 2 where a token may turn over what is held under its key (Grazzi et al., 2025). A token may do so several times, with
keys, values and b of their own, after one decay (Siems et al., 2025, "DeltaProduct").
Shapes: B episodes, M queries, L tokens, D width, E inner width, H heads, R writes of a token, K key size, V = E / H value size.
"""

import dataclasses

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused import Linear, RMSNorm, gate, softplus
from mambacl.learners.learner import State
from mambacl.learners.mixers.delta_config import DeltaConfig
from mambacl.learners.mixers.gated_deltanet_config import GatedDeltaNetConfig
from mambacl.learners.mixers.kda_config import KdaConfig
from mambacl.learners.mixers.matrix import Convolve, MatrixMixer, split_heads, trace, untrace, values_and_back
from mambacl.learners.mixers.mesanet_config import MesaNetConfig
from mambacl.learners.mixers.mixer import Trace, biased, gate_bias, start_alike, start_conv
from mambacl.learners.mixers.rates import log_rates, start_steps
from mambacl.learners.scan import matrix
from mambacl.learners.scan.writes import Writes, on_first
from mambacl.learners.similarity import projection


class GatedDeltaNetMixer(MatrixMixer):
    """Reads and writes with queries and keys of length 1; associations are scored before these are brought to it.

    Cosines would do for scores, too, but not for learning them: once all keys point one way their gradient is zero, and
    meta-training stays on its plateau for ever (seen on glyphs and on Omniglot within a hundred steps).
    """

    erase = True

    def __init__(self, config: GatedDeltaNetConfig | KdaConfig | MesaNetConfig) -> None:
        D, H = config.width, config.heads
        keys = H * config.state_size
        delta = isinstance(config, DeltaConfig)
        self.times, self.reach = (config.householders, 1 + config.negative) if delta else (1, 1)
        convolved = keys + self.times * (keys + config.expand * D)
        super().__init__(config, convolved)
        # Rows: queries, then keys and values of each write.
        self.in_proj = Linear(D, convolved, bias=False)
        self.strength = Linear(D, self.times * H, bias=False)
        self.A_log = log_rates(config.decay * torch.empty(H).uniform_(1, 16))
        self.dt_bias = nn.Parameter(torch.empty(self.decays))
        self.step = self.gate_of_steps(D)
        self.gate = Linear(D, self.inner, bias=False)
        self.gate_bias = gate_bias(self.inner, config.start)
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
        H, R, keys = self.heads, self.times, self.heads * self.keys
        parts = convolve(self.in_proj(x_BLD), self.silu).split([keys, R * keys, R * self.inner], -1)
        q, k, v, b = (
            write_by_write(part, H, times)
            for part, times in zip([*parts, self.strength(x_BLD)], (1, R, R, R), strict=True)
        )
        step_BHLP = split_heads(softplus(self.step(x_BLD), self.dt_bias), H)
        w = Writes(
            query=F.pad(q.unsqueeze(3), (0, 0, R - 1, 0)).flatten(2, 3) if reads else None,
            key=k,
            value=v,
            log_decay=on_first(-torch.exp(self.A_log)[:, None, None] * step_BHLP, R),
            strength=self.reach * b.squeeze(-1).sigmoid(),
            erase=self.erase,
        )
        return w, None

    @torch.no_grad()
    def start_by_similarity(self, features: int) -> None:
        H, R, keys, F = self.heads, self.times, self.heads * self.keys, features
        W, labels = self.in_proj.weight, self.in_proj.weight.shape[1] - features
        assert self.conv
        W.zero_()
        W[:keys, :F] = torch.cat([projection(self.keys, F) for _ in range(H)])
        for write in range(R):
            W[keys * (1 + write) : keys * (2 + write), :F] = W[:keys, :F]
        values, back = values_and_back(H, self.inner // H, labels)
        W[keys * (1 + R) :, F:] = values.repeat(R, 1)
        start_conv(self.conv, slice(keys, keys * (1 + R)))
        for module in (self.strength, self.gate, self.step[-1] if isinstance(self.step, nn.Sequential) else self.step):
            module.weight.zero_()  # type: ignore[operator]
        self.out_proj.weight.zero_()
        self.out_proj.weight[F:] = back

    def run(self, w: Writes, state: State, after: State) -> tuple[Tensor | None, Trace]:
        y, _ = super().run(unit(w), state, after)
        return (None if y is None else y[:, :, self.times - 1 :: self.times]), self.packed(w)

    def ask(self, w: Writes, state: State) -> tuple[Tensor, Trace]:
        return matrix.read(unit(w), state["S"], self.times), self.packed(w)

    def packed(self, w: Writes) -> Trace:
        """What `trace` keeps, with the writes of a token as (B, L, H, R, ...)."""
        return {name: field.unflatten(1, (-1, self.times)).transpose(2, 3) for name, field in trace(w).items()}

    def unpacked(self, kept: Trace) -> Writes:
        """Queries and keys of length 1, of all heads."""
        fields = {name: field.transpose(2, 3).flatten(1, 2) for name, field in kept.items()}
        return unit(untrace(fields, slice(None), self.erase))

    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """q . k for each write, (B, H R, M, L)."""
        return torch.einsum("bmhk,blhrk->bhrml", queries["query"][:, :, :, -1], tokens["key"]).flatten(1, 2)

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        """For each write of each head, whose values differ."""
        rows = matrix.weights(self.unpacked(tokens), self.unpacked(queries), self.times)
        return rearrange(rows, "b h m (l r) -> b (h r) m l", r=self.times)[:, groups]

    @property
    def groups(self) -> int:
        return self.heads * self.times

    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        return self.out_proj(gate(self.normalise(y_BLE), biased(self.gate(x_BLD), self.gate_bias)))

    def normalise(self, y_BLE: Tensor) -> Tensor:
        """Each head's answer to length sqrt(V), times learned weights."""
        return self.norm(y_BLE.unflatten(-1, (self.heads, -1))).flatten(-2)


def write_by_write(x_BLE: Tensor, heads: int, times: int) -> Tensor:
    """Channels (B, L, R H P) as (B, H, L R, P)."""
    return rearrange(x_BLE, "b l (r h p) -> b h (l r) p", r=times, h=heads)


def unit(w: Writes) -> Writes:
    """Queries and keys brought to length 1."""
    query = None if w.query is None else F.normalize(w.query, dim=-1)
    return dataclasses.replace(w, query=query, key=F.normalize(w.key, dim=-1))
