"""mLSTM mixer (Beck et al., 2024, "xLSTM: Extended Long Short-Term Memory").

    S_t = f_t S_{t-1} + i_t k_t v_t^T    n_t = f_t n_{t-1} + i_t k_t    y_t = S_t^T q_t / max(|n_t . q_t|, 1)
with i = exp(.) and f = sigmoid(.). As i overflows, S and n are kept divided by exp(m), m the largest exponent so far.
Shapes: B episodes, L tokens, D width, E inner width, H heads, K key size, V = E / H value size.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused import Linear, gate, linear
from mambacl.learners.learner import State
from mambacl.learners.mixers.matrix import Convolve, NormalisedMixer, split_heads
from mambacl.learners.mixers.mixer import start_alike
from mambacl.learners.mixers.mlstm_config import MlstmConfig
from mambacl.learners.scan.writes import Writes


class MlstmMixer(NormalisedMixer):
    """The mLSTM block; its maps to queries, keys and values are full ones instead of block-diagonal ones."""

    def __init__(self, config: MlstmConfig) -> None:
        D, H = config.width, config.heads
        E, keys = config.expand * D, H * config.state_size
        super().__init__(config, convolved=E)
        self.in_proj = Linear(D, 2 * E, bias=False)
        self.query_key = Linear(E, 2 * keys, bias=False)
        self.value = Linear(E, E, bias=False)
        self.gates = Linear(2 * keys + E, 2 * H)
        self.norm = nn.GroupNorm(H, E)
        self.skip = nn.Parameter(torch.ones(E))
        self.out_proj = Linear(E, D, bias=False)
        start_alike(self.query_key.weight[:keys], self.query_key.weight[keys:])
        # Fresh gates do not depend on the token; heads forget at rates spread from 1/20 to 1/400.
        nn.init.zeros_(self.gates.weight)
        nn.init.normal_(self.gates.bias[:H], std=0.1)
        with torch.no_grad():
            self.gates.bias[H:] = torch.linspace(3, 6, H)

    def init_state(self, batch_size: int) -> State:
        like = self.skip
        return super().init_state(batch_size) | {"m": like.new_full((batch_size, self.heads, 1), -torch.inf)}

    def state_floats(self, tokens: int) -> int:
        return super().state_floats(tokens) + self.heads

    def writes(self, x_BLD: Tensor, convolve: Convolve, reads: bool) -> tuple[Writes, Tensor]:
        x = linear(x_BLD, self.in_proj.weight[: self.inner])
        convolved = convolve(x, True)
        both, v = self.query_key(convolved), self.value(x)
        q, k = (split_heads(part, self.heads) for part in both.chunk(2, -1))
        enter, forget = self.gates(torch.cat([both, v], -1)).transpose(1, 2).chunk(2, 1)
        w = Writes(
            query=q if reads else None,
            key=k * self.keys**-0.5,
            value=split_heads(v, self.heads),
            log_decay=F.logsigmoid(forget).unsqueeze(-1),
            strength=enter,  # its logarithm, until `balance`
        )
        return w, self.skip * convolved

    def balance(self, w: Writes, state: State, after: State | None) -> tuple[Writes, Tensor]:
        assert w.log_decay is not None
        assert w.strength is not None
        forget, enter = w.log_decay.squeeze(-1), w.strength
        # m only moves the scale between numerator and divisor: the answer does not depend on it, so it needs no gradient.
        with torch.no_grad():
            if after is None:
                m = torch.maximum(forget + state["m"], enter)
                before = state["m"].expand_as(m)
            else:
                total = forget.cumsum(-1)
                m = total + torch.maximum((enter - total).cummax(-1).values, state["m"])
                before = torch.cat([state["m"], m[..., :-1]], -1)
                after["m"] = m[..., -1:]
            before = torch.where(before.isinf(), m - forget, before)  # an empty state may be divided by anything
        w = dataclasses.replace(w, log_decay=(forget + before - m).unsqueeze(-1), strength=(enter - m).exp())
        return w, (-m).clamp(max=60).exp().unsqueeze(-1)

    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        z = linear(x_BLD, self.in_proj.weight[self.inner :])
        y = self.norm(y_BLE.flatten(0, 1)).view_as(y_BLE)
        return self.out_proj(gate(y + beside, z))
