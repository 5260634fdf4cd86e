"""What tokens do to a state that is a matrix a head, and how strongly they meet each other.

Legend: B episodes, H heads, L tokens, M queries, K key size, V value size, C tokens of a chunk.
"""

import dataclasses
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Writes:
    """What L tokens, or M queries each as the one next token, do to the state and how they read it."""

    query: Tensor | None
    """(B, H, L, K); None where nothing is read."""
    key: Tensor
    """(B, H, L, K)."""
    value: Tensor
    """(B, H, L, V)."""
    log_decay: Tensor | None
    """(B, H, L, 1) or (B, H, L, K), at most 0; None for no decay."""
    strength: Tensor | None
    """b, (B, H, L); None for 1, which a delta rule does not take."""
    erase: bool = False
    """Whether a token first takes away what the state holds under its key."""

    def to(self, dtype: torch.dtype) -> Self:
        """The same in one dtype: autocast makes some of the fields half."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: x.to(dtype) for name, x in fields.items() if isinstance(x, Tensor)})


def on_first(x_BHLP: Tensor, times: int) -> Tensor:
    """Numbers of tokens as those of `times` writes each, (B, H, L times, P): on the first, and 0 on the others."""
    return F.pad(x_BHLP.unsqueeze(3), (0, 0, 0, times - 1)).flatten(2, 3)


def pairs(left: Tensor, right: Tensor, G: Tensor | None) -> Tensor:
    """left_t^T diag(exp(G_t - G_s)) right_s for s <= t, (..., C, C); what stands above the diagonal is finite."""
    if G is None:
        return left @ right.transpose(-1, -2)
    # Exponents of differences, which are at most 0, and not products of exp(G_t) and exp(-G_s), which overflow.
    if G.shape[-1] == 1:
        return (left @ right.transpose(-1, -2)) * (G - G.transpose(-1, -2)).clamp(max=0).exp()
    apart = (G.unsqueeze(-2) - G.unsqueeze(-3)).clamp(max=0).exp()
    return (left.unsqueeze(-2) * apart * right.unsqueeze(-3)).sum(-1)


def unit(k: Tensor, G: Tensor | None, b: Tensor) -> Tensor:
    """I + diag(b) strict_tril(P); the unit diagonal is left to the solver."""
    return (b * pairs(k, k, G)).tril(-1)
