"""Softmax attention mixer (Vaswani et al., 2017), causal along the stream, with a key-value cache.

Shapes: B episodes, M queries, L tokens, D width, H heads, P width of a head, R cached tokens.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.cache import append, cached, entries
from mambacl.learners.fused import Linear
from mambacl.learners.learner import State
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.mixer import Mixer, Trace, start_alike
from mambacl.learners.mixers.short_conv import ShortConv


class AttentionMixer(Mixer):
    """Every token reads all tokens before it and itself; a query reads the whole stream and itself."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        D = config.width
        self.heads, self.rotary = config.heads, config.positions == "rotary"
        self.conv = ShortConv(D, config.short_conv) if config.short_conv else None
        self.in_proj = Linear(D, 3 * D)
        self.out_proj = Linear(D, D)
        start_alike(self.in_proj.weight[:D], self.in_proj.weight[D : 2 * D])
        start_alike(self.in_proj.bias[:D], self.in_proj.bias[D : 2 * D])

    @property
    def groups(self) -> int:
        return self.heads

    def init_state(self, batch_size: int) -> State:
        weight = self.in_proj.weight
        empty = weight.new_zeros(batch_size, self.heads, 0, weight.shape[1] // self.heads)
        state: State = {"key": cached(empty), "value": cached(empty)}
        return state | ({"conv": self.conv.init_state(batch_size)} if self.conv else {})

    def state_floats(self, tokens: int) -> int:
        return 2 * self.in_proj.weight.shape[1] * tokens + (self.conv.state_floats if self.conv else 0)

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        after = dict(state)  # keeps the order of the leaves: saved states are restored by it
        if self.conv:
            x_BLD, after["conv"] = self.conv.stream(x_BLD, state["conv"])
        past = int(state["key"]["length"])
        q, k, v = self._project(x_BLD, past + torch.arange(x_BLD.shape[1], device=x_BLD.device))
        after["key"], keys = append(state["key"], k)
        after["value"], values = append(state["value"], v)
        y = None
        if outputs:
            L = x_BLD.shape[1]
            mask = None if past == 0 else torch.ones(L, past + L, dtype=torch.bool, device=q.device).tril(past)
            y_BHLP = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=past == 0)
            y = self.out_proj(rearrange(y_BHLP, "b h l p -> b l (h p)"))
        return y, after, {"key": rearrange(k, "b h l p -> b l h p"), "value": rearrange(v, "b h l p -> b l h p")}

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        if self.conv:
            x_BMD = self.conv.read(x_BMD, state["conv"])
        length = int(state["key"]["length"])
        q, k, v = self._project(x_BMD, torch.full((x_BMD.shape[1],), length, device=x_BMD.device))
        keys, values = entries(state["key"]), entries(state["value"])
        scale = q.shape[-1] ** -0.5
        own = (q * k).sum(-1, keepdim=True)
        row_BHMR = torch.softmax(torch.cat([q @ keys.transpose(-1, -2), own], dim=-1) * scale, dim=-1)
        y_BHMP = row_BHMR[..., :-1] @ values + row_BHMR[..., -1:] * v
        trace = {name: rearrange(part, "b h m p -> b m h p") for name, part in {"query": q, "key": k}.items()}
        return self.out_proj(rearrange(y_BHMP, "b h m p -> b m (h p)")), trace

    def _project(self, x_BLD: Tensor, position_L: Tensor) -> list[Tensor]:
        """Queries, keys and values (B, H, L, P) of tokens at these positions."""
        parts = rearrange(self.in_proj(x_BLD), "b l (three h p) -> three b h l p", three=3, h=self.heads).unbind(0)
        return [rotate(parts[0], position_L), rotate(parts[1], position_L), parts[2]] if self.rotary else list(parts)

    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """q . k / sqrt(P), (B, H, M, L)."""
        return torch.einsum("bmhp,blhp->bhml", queries["query"], tokens["key"]) * queries["query"].shape[-1] ** -0.5

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        """Softmax rows over the stream and the query itself, less the query's own share."""
        own = (queries["query"] * queries["key"]).sum(-1).transpose(1, 2).unsqueeze(-1) * queries["query"].shape[
            -1
        ] ** -0.5
        row = torch.cat([self.scores(tokens, queries), own], dim=-1)
        return torch.softmax(row, dim=-1)[:, groups, :, :-1]


def rotate(x_BHLP: Tensor, position_L: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021, "RoFormer"): turn pairs of channels by angles proportional to position."""
    half = x_BHLP.shape[-1] // 2
    rate = 10_000.0 ** (-torch.arange(half, device=x_BHLP.device, dtype=torch.float64) / half)
    angle_LP = position_L.double().unsqueeze(1) * rate
    cos, sin = angle_LP.cos().to(x_BHLP.dtype), angle_LP.sin().to(x_BHLP.dtype)
    a, b = x_BHLP.split(half, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
