"""Slow reference of the recurrences with a matrix state (matrix.py): one token after the other, for any device and dtype.

Legend: B episodes, H heads, L tokens, K key size, V value size.
"""

import torch
from torch import Tensor

from mambacl.learners.scan.writes import Writes


def scan(w: Writes, state: Tensor) -> tuple[Tensor | None, Tensor]:
    """See `mambacl.learners.scan.matrix.scan`."""
    L = w.value.shape[2]
    decays = [None] * L if w.log_decay is None else w.log_decay.exp().unbind(2)
    strengths = [None] * L if w.strength is None else w.strength.unbind(2)
    queries = [None] * L if w.query is None else w.query.unbind(2)
    outputs = []
    for q, k, v, a, b in zip(queries, w.key.unbind(2), w.value.unbind(2), decays, strengths, strict=True):
        state = state if a is None else a.unsqueeze(-1) * state
        if w.erase:
            v = v - (k.unsqueeze(-2) @ state).squeeze(-2)
        written = k.unsqueeze(-1) * v.unsqueeze(-2)
        state = state + (written if b is None else b[..., None, None] * written)
        if q is not None:
            outputs.append((q.unsqueeze(-2) @ state).squeeze(-2))
    return (torch.stack(outputs, 2) if outputs else None), state
