"""Mamba-1 mixer (Gu and Dao, 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces").

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t          y_t = C_t . h_t + D u_t
Shapes: B episodes, M queries, L tokens, D width, E inner width, N state size, R rank of Delta, G a slice of E.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused import Linear, gate, linear, softplus
from mambacl.learners.learner import State
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.mixers.mixer import Mixer, Trace, biased, gate_bias, start_alike, start_conv
from mambacl.learners.mixers.rates import log_rates, start_steps
from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.learners.scan import selective_read, selective_scan
from mambacl.learners.similarity import projection


class MambaMixer(Mixer):
    """The standard block: B and C are shared by all channels, so a token has one key and one query of width N.

    To find what a part is good for, it can be left out: decays (A = 0), steps that a token chooses, the gate of the outputs.
    """

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        D, E, N = config.width, config.expand * config.width, config.state_size
        R = math.ceil(D / 16) if config.selective_steps else 0
        self.rank, self.states, self.gated, self.kernel = R, N, config.gate, config.kernel
        self.in_proj = Linear(D, 2 * E if config.gate else E, bias=False)
        self.conv = ShortConv(E, config) if config.short_conv else None
        self.x_proj = Linear(E, R + 2 * N, bias=False)
        self.dt_proj = Linear(R, E) if R else None
        self.dt_bias = None if R else nn.Parameter(torch.empty(E))
        rates = (config.decay * torch.arange(1, N + 1).float()).repeat(E, 1)
        self.A_log = log_rates(rates) if config.decays else None
        self.D = nn.Parameter(torch.ones(E))
        self.gate_bias = gate_bias(E, config.start) if config.gate else None
        self.out_proj = Linear(E, D, bias=False)
        if self.dt_proj:
            nn.init.uniform_(self.dt_proj.weight, -(R**-0.5), R**-0.5)
        start_alike(self.x_proj.weight[R + N :], self.x_proj.weight[R : R + N])
        start_steps(self.step_bias, *config.delta)

    @torch.no_grad()
    def start_by_similarity(self, features: int) -> None:
        """Every number of a token takes two channels, one with its sign turned: the difference of their SiLUs is the number."""
        E, D = self.groups, self.in_proj.weight.shape[1]
        R, F = self.rank, features
        assert self.conv
        eye = torch.eye(D)
        self.in_proj.weight[: 2 * D] = torch.cat([eye, -eye])
        self.in_proj.weight[E:] = 0
        start_conv(self.conv, slice(F), slice(D, D + F))
        self.x_proj.weight.zero_()
        keys = D**-0.5 * projection(self.states, F)
        for rows in (slice(R, R + self.states), slice(R + self.states, None)):
            self.x_proj.weight[rows, :F], self.x_proj.weight[rows, D : D + F] = keys, -keys
        self.out_proj.weight.zero_()
        self.out_proj.weight[F:, F:D] = torch.eye(D - F)
        self.out_proj.weight[F:, D + F : 2 * D] = -torch.eye(D - F)

    @property
    def groups(self) -> int:
        return len(self.D)

    def init_state(self, batch_size: int) -> State:
        state = {"h": self.D.new_zeros(batch_size, self.groups, self.states)}
        return state | ({"conv": self.conv.init_state(batch_size)} if self.conv else {})

    def state_floats(self, tokens: int) -> int:
        return self.groups * self.states + (self.conv.state_floats if self.conv else 0)

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        x = linear(x_BLD, self.in_proj.weight[: self.groups])
        after = dict(state)  # keeps the order of the leaves: saved states are restored by it
        if self.conv:
            u, after["conv"] = self.conv.stream(x, state["conv"], silu=True)
        else:
            u = F.silu(x)
        delta, B, C = self._selective(u)
        y, after["h"] = selective_scan(
            u, delta, self.A, B, C if outputs else None, self.D if outputs else None, state["h"], kernel=self.kernel
        )
        return None if y is None else self._leave(y, x_BLD), after, {"u": u, "delta": delta, "B": B}

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        x = linear(x_BMD, self.in_proj.weight[: self.groups])
        u = self.conv.read(x, state["conv"], silu=True) if self.conv else F.silu(x)
        delta, B, C = self._selective(u)
        y = selective_read(u, delta, self.A, B, C, self.D, state["h"], kernel=self.kernel)
        return self._leave(y, x_BMD), {"u": u, "delta": delta, "B": B, "C": C}

    def scan_flops(self, tokens: int, outputs: bool) -> int:
        # For a channel and state number: exponential and product of the decay, product and sum of the update, the products
        # that form the write; and product and sum of the output.
        return tokens * self.groups * self.states * (9 if outputs else 7)

    @property
    def step_bias(self) -> Tensor:
        bias = self.dt_proj.bias if self.dt_proj else self.dt_bias
        assert bias is not None
        return bias

    @property
    def A(self) -> Tensor:
        return self.D.new_zeros(self.groups, self.states) if self.A_log is None else -torch.exp(self.A_log)

    def _selective(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Delta (B, L, E) and B, C (B, L, N) of the tokens' inputs u."""
        step, B, C = self.x_proj(u).split([self.rank, self.states, self.states], dim=-1)
        chosen = linear(step, self.dt_proj.weight) if self.dt_proj else torch.zeros_like(u)
        return softplus(chosen, self.step_bias), B, C

    def _leave(self, y_BLE: Tensor, x_BLD: Tensor) -> Tensor:
        y_BLE = (
            gate(y_BLE, biased(linear(x_BLD, self.in_proj.weight[self.groups :]), self.gate_bias))
            if self.gated
            else y_BLE
        )
        return self.out_proj(y_BLE)

    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """C_q . B_t, the paper's analogue of query times key: (B, 1, M, L)."""
        return torch.einsum("bmn,bln->bml", queries["C"], tokens["B"]).unsqueeze(1)

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        """alpha_c(q, t) = sum_n C_q[n] exp(A[c,n] (S_q[c] - S_t[c])) B_t[n] Delta_t[c], S the running sum of Delta."""
        delta_BLG = tokens["delta"][..., groups]
        # Distances from the stream's end, where every query stands: both factors stay at most 1.
        to_end_BLG = delta_BLG.flip(1).cumsum(1).flip(1) - delta_BLG
        A_GN = self.A[groups]
        key = torch.exp(torch.einsum("blg,gn->blgn", to_end_BLG, A_GN)) * torch.einsum(
            "bln,blg->blgn", tokens["B"], delta_BLG
        )
        query = queries["C"].unsqueeze(2) * torch.exp(torch.einsum("bmg,gn->bmgn", queries["delta"][..., groups], A_GN))
        return torch.matmul(rearrange(query, "b m g n -> b g m n"), rearrange(key, "b l g n -> b g n l"))
