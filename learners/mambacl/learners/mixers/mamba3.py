"""Mamba-3 mixer (Lahoti et al., 2026, "Mamba-3: Improved Sequence Modeling using State Space Principles").

    S_t = a_t S_{t-1} + a_t (1 - g_t) Delta_t K_{t-1}^T V_{t-1} + g_t Delta_t K_t^T V_t          Y_t = Q_t S_t
with a_t = exp(Delta_t A_t), K and Q turned by the angle that has run up: its complex-valued state in real numbers. The rows of K, V and
Q (R of them) are the inputs and outputs of a head; V_t and the output are R learned scalings of one value.
Shapes: B episodes, M queries, L tokens, D width, E inner width, H heads, R rank, N state size, P = E / H, J angles.
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused import Linear, RMSNorm, gate, linear, softplus
from mambacl.learners.learner import State
from mambacl.learners.mixers.mamba3_config import Mamba3Config
from mambacl.learners.mixers.mixer import Mixer, Trace, start_alike
from mambacl.learners.mixers.rates import start_steps
from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.learners.scan import matrix
from mambacl.learners.scan.writes import Writes, on_first
from mambacl.learners.undecayed import undecayed

SLOWEST = 1e-4
"""Least rate of decay, as a multiple of `decay`."""


class Tokens(NamedTuple):
    """What is made of tokens before they meet a state."""

    key: Tensor
    """(B, L, R, N), neither biased nor turned."""
    query: Tensor
    """(B, L, R, N), likewise."""
    value: Tensor
    """x, (B, H, L, P)."""
    log_decay: Tensor
    """Delta A, (B, H, L)."""
    now: Tensor
    """g Delta, (B, H, L): the strength with which a token is written by itself."""
    late: Tensor
    """(1 - g) Delta, (B, H, L): the strength with which it writes the token before it again, before the decay."""
    turn: Tensor
    """Angles by which a token turns the state, (B, H, L, J)."""


class Mamba3Mixer(Mixer):
    """What a token t writes late, at t + 1, is written with it at t: from t + 1 on both states are the same. So one scan does, with
    the strength g_t Delta_t + (1 - g_{t+1}) Delta_{t+1}, and outputs at t itself are set right by R x R products."""

    def __init__(self, config: Mamba3Config) -> None:
        super().__init__()
        D, H, N, R = config.width, config.heads, config.state_size, config.rank
        E = config.expand * D
        self.heads, self.keys, self.rank, self.inner, self.columns = H, N, R, E, E // H
        self.angles, self.rate, self.kernel = int(config.turned * N) // 2, config.decay, config.kernel
        self.conv = ShortConv(E + 2 * R * N, config) if config.short_conv else None
        # Rows: gate z; x, B, C, through the convolution if there is one; then Delta, A, g, angles.
        self.in_proj = Linear(D, 2 * E + 2 * R * N + 3 * H + self.angles, bias=False)
        self.step_bias = nn.Parameter(torch.empty(H))
        self.key_norm, self.query_norm = RMSNorm(N), RMSNorm(N)
        self.key_bias, self.query_bias = (undecayed(torch.ones(H, R, N)) for _ in range(2))
        self.up = undecayed(torch.full((H, R, E // H), 1 / R)) if R > 1 else None
        self.down = undecayed(torch.full((H, R, E // H), 1 / R)) if R > 1 else None
        self.D = nn.Parameter(torch.ones(H))
        self.out_proj = Linear(E, D, bias=False)
        B, C = self.in_proj.weight[2 * E : 2 * E + 2 * R * N].chunk(2)
        start_alike(C, B)
        start_steps(self.step_bias, *config.delta)

    @property
    def groups(self) -> int:
        return self.heads if self.up is None else self.inner

    def init_state(self, batch_size: int) -> State:
        H, like = self.heads, self.D
        state = {
            "S": like.new_zeros(batch_size, H, self.keys, self.columns),
            "angle": like.new_zeros(batch_size, H, self.angles),
            "key": like.new_zeros(batch_size, self.rank, self.keys),
            "value": like.new_zeros(batch_size, H, self.columns),
        }
        return state | ({"conv": self.conv.init_state(batch_size)} if self.conv else {})

    def state_floats(self, tokens: int) -> int:
        last = self.heads * self.angles + self.rank * self.keys + self.inner
        return self.keys * self.inner + last + (self.conv.state_floats if self.conv else 0)

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        after = dict(state)  # keeps the order of the leaves: saved states are restored by it
        channels = linear(x_BLD, self._rows("tokens"))
        if self.conv:
            channels, after["conv"] = self.conv.stream(channels, state["conv"])
        t = self._tokens(x_BLD, channels)
        angle = state["angle"].unsqueeze(2) + t.turn.cumsum(2)
        key, query, value = self._key(t.key, angle), self._query(t.query, angle), self._values(t.value)
        strength = t.now + F.pad(t.late[:, :, 1:], (0, 1))
        last_key, last_value = self._last(state)
        y, after["S"] = matrix.scan(
            Writes(
                query=query.flatten(2, 3) if outputs else None,
                key=key.flatten(2, 3),
                value=value.flatten(2, 3),
                log_decay=on_first(t.log_decay.unsqueeze(-1), self.rank),
                strength=strength.repeat_interleave(self.rank, 2),
            ),
            state["S"] + t.late[:, :, 0, None, None] * (last_key.transpose(-1, -2) @ last_value),
            self.kernel,
        )
        after |= {"angle": _wrapped(angle[:, :, -1]), "key": t.key[:, -1], "value": t.value[:, :, -1]}
        trace = {"key": key, "log_decay": t.log_decay, "now": t.now, "late": t.late, "value": t.value}
        if y is None:
            return None, after, _tokens_first(trace)
        # A row has read those up to itself, with the strength of both writes: it is to read all R, with that of the first.
        own = query @ key.transpose(-1, -2)
        own = own * t.now[..., None, None] - own.tril() * strength[..., None, None]
        y = y.unflatten(2, (-1, self.rank)) + own @ value
        return self._leave(y, t.value, x_BLD), after, _tokens_first(trace)

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        channels = linear(x_BMD, self._rows("tokens"))
        t = self._tokens(x_BMD, self.conv.read(channels, state["conv"]) if self.conv else channels)
        angle = state["angle"].unsqueeze(2) + t.turn
        key, query, value = self._key(t.key, angle), self._query(t.query, angle), self._values(t.value)
        last_key, last_value = self._last(state)
        held = query @ state["S"].unsqueeze(2)
        held = held + t.late[..., None, None] * (
            query @ last_key.transpose(-1, -2).unsqueeze(2) @ last_value.unsqueeze(2)
        )
        own = t.now[..., None, None] * (query @ key.transpose(-1, -2) @ value)
        y = t.log_decay.exp()[..., None, None] * held + own
        return self._leave(y, t.value, x_BMD), _tokens_first({"query": query, "log_decay": t.log_decay, "late": t.late})

    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """Q . K row by row, (B, H R, M, L)."""
        pairs = torch.einsum("bmhrn,blhrn->bhrml", queries["query"], tokens["key"])
        return pairs.flatten(1, 2)

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        """Of the values x: a head's, or with more than one row a channel's, whose rows are scaled each in their own way."""
        g = tokens["log_decay"]
        fade = (g.flip(1).cumsum(1).flip(1) - g).exp()
        # Behind the last token stands the query, which writes that token again.
        late = F.pad(tokens["late"][:, 1:], (0, 0, 0, 1))
        key = tokens["key"] * (fade * (tokens["now"] + late))[..., None, None]
        query = queries["query"] * queries["log_decay"].exp()[..., None, None]
        rows = torch.einsum("bmhrn,blhsn->bhrsml", query, key)
        again = torch.einsum("bmhrn,bhsn->bhrsm", query * queries["late"][..., None, None], tokens["key"][:, -1])
        rows = rows + F.pad(again.unsqueeze(-1), (rows.shape[-1] - 1, 0))
        if self.up is None or self.down is None:
            return rows[:, groups, 0, 0]
        channels = torch.arange(self.inner, device=g.device)[groups]
        head, column = channels // self.columns, channels % self.columns
        return torch.einsum("bgrsml,gr,gs->bgml", rows[:, head], self.down[head, :, column], self.up[head, :, column])

    def _rows(self, part: str) -> Tensor:
        E, R, N = self.inner, self.rank, self.keys
        gates, tokens, rates = self.in_proj.weight.split([E, E + 2 * R * N, 3 * self.heads + self.angles])
        return {"gates": gates, "tokens": tokens, "rates": rates}[part]

    def _tokens(self, x_BLD: Tensor, channels: Tensor) -> Tokens:
        x, B, C = channels.split([self.inner, self.rank * self.keys, self.rank * self.keys], -1)
        rates = linear(x_BLD, self._rows("rates"))
        step, decay, part, turn = rates.split([self.heads] * 3 + [self.angles], -1)
        step = softplus(step, self.step_bias).transpose(1, 2)
        decay, part = decay.transpose(1, 2), part.sigmoid().transpose(1, 2)
        rate = self.rate * torch.where(decay >= 0, 1 + decay, 1 / (1 - decay.clamp(max=0))).clamp(min=SLOWEST)
        key, query = self.key_norm(B.unflatten(-1, (self.rank, -1))), self.query_norm(C.unflatten(-1, (self.rank, -1)))
        value = rearrange(x, "b l (h p) -> b h l p", h=self.heads)
        turn = step.unsqueeze(-1) * turn.unsqueeze(1)
        return Tokens(key, query, value, -rate * step, part * step, (1 - part) * step, turn)

    def _key(self, key_BLRN: Tensor, angle_BHLJ: Tensor) -> Tensor:
        return _turned(key_BLRN.unsqueeze(1) + self.key_bias.unsqueeze(1), angle_BHLJ)

    def _query(self, query_BLRN: Tensor, angle_BHLJ: Tensor) -> Tensor:
        return _turned(query_BLRN.unsqueeze(1) + self.query_bias.unsqueeze(1), angle_BHLJ)

    def _values(self, x_BHLP: Tensor) -> Tensor:
        """The rows of V, (B, H, L, R, P)."""
        x = x_BHLP.unsqueeze(3)
        return x if self.up is None else x * self.up.unsqueeze(1)

    def _last(self, state: State) -> tuple[Tensor, Tensor]:
        """K (B, H, R, N) and V (B, H, R, P) of the last token."""
        key = self._key(state["key"].unsqueeze(1), state["angle"].unsqueeze(2))
        return key.squeeze(2), self._values(state["value"].unsqueeze(2)).squeeze(2)

    def _leave(self, y_BHLRP: Tensor, x_BHLP: Tensor, x_BLD: Tensor) -> Tensor:
        y = y_BHLRP.squeeze(3) if self.down is None else (y_BHLRP * self.down.unsqueeze(1)).sum(3)
        y = rearrange(y + self.D[:, None, None] * x_BHLP, "b h l p -> b l (h p)")
        return self.out_proj(gate(y, linear(x_BLD, self._rows("gates"))))


def _turned(x_BHLRN: Tensor, angle_BHLJ: Tensor) -> Tensor:
    """The first 2 J numbers of each row, as pairs (n, n + J), turned by the angles; the others as they are."""
    J = angle_BHLJ.shape[-1]
    a, b, rest = x_BHLRN.split([J, J, x_BHLRN.shape[-1] - 2 * J], -1)
    cos, sin = angle_BHLJ.cos().unsqueeze(3), angle_BHLJ.sin().unsqueeze(3)
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


def _wrapped(angle: Tensor) -> Tensor:
    """The same direction within half a turn: a sum that runs on would lose its last digits."""
    return angle - 2 * math.pi * (angle.detach() / (2 * math.pi)).round()


def _tokens_first(kept: Trace) -> Trace:
    return {name: field.transpose(1, 2) for name, field in kept.items()}
