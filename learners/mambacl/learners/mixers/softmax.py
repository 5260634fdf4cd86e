"""Softmax attention (Vaswani et al., 2017), causal along the stream, with a key-value cache: what its mixers share.

Shapes: B episodes, M queries, L tokens, D width, H heads, P width of a head, R cached tokens.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.cache import append, cached, entries
from mambacl.learners.fused import Linear
from mambacl.learners.learner import State
from mambacl.learners.mixers.mixer import Mixer, Trace
from mambacl.learners.mixers.softmax_config import SoftmaxConfig


class SoftmaxMixer(Mixer):
    """Every token reads all tokens before it and itself; a query reads the whole stream and itself.

    A token's position is the number of tokens before it. All queries stand right after the stream.
    """

    def __init__(self, config: SoftmaxConfig) -> None:
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.in_proj = Linear(D, 3 * D)
        self.out_proj = Linear(D, D)

    def place(self, q_BHLP: Tensor, k_BHLP: Tensor, position_L: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of tokens at these positions, as they are multiplied."""
        return q_BHLP, k_BHLP

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        """What is added to the logits (..., H, M, L) between queries at positions (..., M) and keys at positions (..., L), and is
        0 where both are the same; None for nothing."""
        return None

    def first(self, state: State) -> int:
        """Position of the first token that is held."""
        return 0

    @property
    def groups(self) -> int:
        return self.heads

    def init_state(self, batch_size: int) -> State:
        weight = self.in_proj.weight
        empty = weight.new_zeros(batch_size, self.heads, 0, weight.shape[1] // self.heads)
        return {"key": cached(empty), "value": cached(empty)}

    def state_floats(self, tokens: int) -> int:
        return 2 * self.in_proj.weight.shape[1] * tokens

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        after = dict(state)  # keeps the order of the leaves: saved states are restored by it
        first, held = self.first(state), int(state["key"]["length"])
        position_L = first + held + torch.arange(x_BLD.shape[1], device=x_BLD.device)
        q, k, v = self._project(x_BLD, position_L)
        after["key"], keys = append(state["key"], k)
        after["value"], values = append(state["value"], v)
        y = self._leave(self._attend(q, keys, values, position_L, first)) if outputs else None
        return y, after, _trace(position_L, key=k, value=v)

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        keys, values = entries(state["key"]), entries(state["value"])
        position_R = self.first(state) + torch.arange(keys.shape[2], device=x_BMD.device)
        position_M = torch.full((x_BMD.shape[1],), self.first(state) + keys.shape[2], device=x_BMD.device)
        q, k, v = self._project(x_BMD, position_M)
        logits_BHMR = self._logits(q, keys, position_M, position_R)
        row_BHMR = torch.softmax(torch.cat([logits_BHMR, _own(q, k)], dim=-1), dim=-1)
        y_BHMP = row_BHMR[..., :-1] @ values + row_BHMR[..., -1:] * v
        return self._leave(y_BHMP), _trace(position_M, query=q, key=k)

    def scores(self, tokens: Trace, queries: Trace) -> Tensor:
        """The logits of the softmax, (B, H, M, L)."""
        q, k = queries["query"].transpose(1, 2), tokens["key"].transpose(1, 2)
        return self._logits(q, k, queries["position"], tokens["position"])

    def weights(self, tokens: Trace, queries: Trace, groups: slice) -> Tensor:
        """Softmax rows over the stream and the query itself, less the query's own share."""
        own = _own(queries["query"], queries["key"]).transpose(1, 2)
        row = torch.cat([self.scores(tokens, queries), own], dim=-1)
        return torch.softmax(row, dim=-1)[:, groups, :, :-1]

    def _project(self, x_BLD: Tensor, position_L: Tensor) -> list[Tensor]:
        """Queries, keys and values (B, H, L, P) of tokens at these positions."""
        q, k, v = rearrange(self.in_proj(x_BLD), "b l (three h p) -> three b h l p", three=3, h=self.heads).unbind(0)
        return [*self.place(q, k, position_L), v]

    def _attend(self, q_BHLP: Tensor, keys: Tensor, values: Tensor, position_L: Tensor, first: int) -> Tensor:
        """What tokens read (B, H, L, P), each from the keys and values up to its own, which are the last ones."""
        key_R = first + torch.arange(keys.shape[2], device=keys.device)
        bias = self.bias(position_L.unsqueeze(0), key_R.unsqueeze(0))
        if bias is None and keys.shape[2] == q_BHLP.shape[2]:
            return F.scaled_dot_product_attention(q_BHLP, keys, values, is_causal=True)
        mask = position_L.unsqueeze(1) >= key_R
        mask = mask if bias is None else bias.masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(q_BHLP, keys, values, attn_mask=mask)

    def _logits(self, q_BHMP: Tensor, k_BHLP: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """q . k / sqrt(P) and the bias (B, H, M, L), for queries and keys at these positions."""
        logits, bias = q_BHMP @ k_BHLP.transpose(-1, -2) * q_BHMP.shape[-1] ** -0.5, self.bias(query, key)
        return logits if bias is None else logits + bias

    def _leave(self, y_BHLP: Tensor) -> Tensor:
        return self.out_proj(rearrange(y_BHLP, "b h l p -> b l (h p)"))


def _own(q: Tensor, k: Tensor) -> Tensor:
    """Logits (..., 1) between queries and keys (..., P) of the same tokens."""
    return (q * k).sum(-1, keepdim=True) * q.shape[-1] ** -0.5


def _trace(position_L: Tensor, **parts_BHLP: Tensor) -> Trace:
    kept = {name: part.transpose(1, 2) for name, part in parts_BHLP.items()}
    B = len(next(iter(kept.values())))
    return kept | {"position": position_L.expand(B, -1)}
