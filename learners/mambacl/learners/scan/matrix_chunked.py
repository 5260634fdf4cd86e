"""Recurrences with a matrix state as products of matrices: tokens of a chunk together, chunks one after the other.

Legend: B episodes, H heads, L tokens, K key size, V value size, n chunks of C tokens.

Chunks follow Yang et al., 2024 ("Parallelizing Linear Transformers with the Delta Rule over Sequence Length"). With G the sum
of log decays since the chunk began and S_0 the state before it, a delta rule writes pseudo-values u in place of values,

    (I + diag(b) strict_tril(P)) u = diag(b) (v - (k exp(G)) S_0),        P_ts = k_t^T diag(exp(G_t - G_s)) k_s
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.scan.writes import Writes, pairs, unit

CHUNK = 32
"""Tokens of a chunk where the decay is one number a head."""
CHANNEL_CHUNK = 16
"""Tokens of a chunk where every key channel decays by itself: P is then formed from C x C x K exponentials."""


def scan(w: Writes, state: Tensor) -> tuple[Tensor | None, Tensor]:
    """See `mambacl.learners.scan.matrix.scan`."""
    L = w.value.shape[2]
    C = min(L, CHANNEL_CHUNK if w.log_decay is not None and w.log_decay.shape[-1] > 1 else CHUNK)
    k, v = _cut(w.key, C), _cut(w.value, C)
    b = None if w.strength is None else _cut(w.strength.unsqueeze(-1), C)
    G = None if w.log_decay is None else _cut(w.log_decay, C).cumsum(-2)
    kept = None if G is None else G[..., -1:, :].exp().transpose(-1, -2)
    k_end = k if G is None else k * (G[..., -1:, :] - G).exp()
    u, erased = v if b is None else b * v, None
    if w.erase and b is not None:
        lower = unit(k, G, b)
        u = _solve(lower, u)
        erased = _solve(lower, b * (k if G is None else k * G.exp()))
    q = within = None
    if w.query is not None:
        q = _cut(w.query, C)
        within = pairs(q, k, G).tril()
        q = q if G is None else q * G.exp()
    outputs = []
    for i in range(v.shape[2]):
        u_i = u[:, :, i] if erased is None else u[:, :, i] - erased[:, :, i] @ state
        if q is not None and within is not None:
            outputs.append(q[:, :, i] @ state + within[:, :, i] @ u_i)
        written = k_end[:, :, i].transpose(-1, -2) @ u_i
        state = written + (state if kept is None else kept[:, :, i] * state)
    return (torch.cat(outputs, 2)[:, :, :L] if outputs else None), state


def _cut(x: Tensor, C: int) -> Tensor:
    """(B, H, L, ...) in chunks (B, H, n, C, ...), the last one filled with zeros, which write nothing."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % C))
    return x.unflatten(2, (-1, C))


def _solve(lower: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
