"""Recurrences whose state is a matrix a head: linear attention, Mamba-2, mLSTM and delta rules.

Legend: B episodes, H heads, L tokens, M queries, K key size, V value size.

    S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T        with erasing (the delta rule)
    S_t = diag(a_t) S_{t-1} + b_t k_t v_t^T                            without
    y_t = S_t^T q_t

a_t = exp(log_decay_t) is one number a head, or one a key channel. Heads that share keys and queries have them with H = 1.

    fla        GPU: the Triton kernels of flash-linear-attention (matrix_fla.py)
    chunked    anywhere: products of matrices, one small step a chunk (matrix_chunked.py)
    reference  anywhere, slow: one token after the other (matrix_reference.py)
"""

import torch
from torch import Tensor

from mambacl.learners.scan.dispatch import Kernel, Recurrence
from mambacl.learners.scan.writes import Writes, unit

MATRIX = Recurrence(
    "matrix scan",
    (
        ("fla", Kernel("matrix_fla", "cuda", "pip install flash-linear-attention")),
        ("chunked", Kernel("matrix_chunked", None)),
        ("reference", Kernel("matrix_reference", None)),
    ),
)


def scan(w: Writes, state: Tensor, kernel: str = "auto") -> tuple[Tensor | None, Tensor]:
    """Run streams: outputs (B, H, L, V), None without queries, and the state (B, H, K, V) after the last token.

    Differentiable in every tensor, through the outputs and through the final state. state: that before the first token, not
    modified. kernel: "auto", "fla", "chunked" or "reference". In float32 under autocast, too.

    Raises ValueError for an unknown kernel, KernelError where the one asked for cannot run.
    """
    with torch.autocast(state.device.type, enabled=False):
        return MATRIX.module(state.device.type, kernel).scan(w.to(state.dtype), state)


def states(w: Writes, state: Tensor) -> Tensor:
    """The state after every token, (B, H, L, K, V), for writes without erasing: L times the memory of a scan."""
    a = None if w.log_decay is None else w.log_decay.exp().unsqueeze(-1)
    b = 1 if w.strength is None else w.strength[..., None, None]
    written = (b * w.key.unsqueeze(-1) * w.value.unsqueeze(-2)).unbind(2)
    after = []
    for t, own in enumerate(written):
        state = own + (state if a is None else a[:, :, t] * state)
        after.append(state)
    return torch.stack(after, 2)


def read(w: Writes, state: Tensor, times: int = 1) -> Tensor:
    """Answers (B, H, M, V) to queries, each as if it were the one next token: it is written, so many times, before it reads.

    In float32 under autocast, too."""
    with torch.autocast(state.device.type, enabled=False):
        q, own = _reader(w.to(state.dtype), times)
        return q @ state + own


def weights(tokens: Writes, queries: Writes, times: int = 1) -> Tensor:
    """Weight (B, H, M, L) of each write's value in each query's answer, for a stream that began with an empty state; a query is
    written `times` before it reads."""
    q, _ = _reader(queries, times)
    k, g = tokens.key, tokens.log_decay
    if g is not None:  # summed from the stream's end: the decays of recent tokens, which count most, stay exact
        k = k * (g.flip(-2).cumsum(-2).flip(-2) - g).exp()
    row = q @ k.transpose(-1, -2)
    if tokens.strength is None:
        return row
    b = tokens.strength.unsqueeze(-1)
    if tokens.erase:
        lower = unit(tokens.key, None if g is None else g.cumsum(-2), b)
        row = torch.linalg.solve_triangular(lower, row, upper=False, unitriangular=True, left=False)
    return row * b.transpose(-1, -2)


def _reader(w: Writes, times: int) -> tuple[Tensor, Tensor]:
    """What multiplies the state before the queries (B, H, M, K), and what they read of their own writes (B, H, M, V)."""
    assert w.query is not None
    keys, values = _cut(w.key, times), _cut(w.value, times)
    q, own = _cut(w.query, times)[-1], w.value.new_zeros(())
    for i in reversed(range(times)):
        share = (q * keys[i]).sum(-1, keepdim=True)
        share = share if w.strength is None else share * _cut(w.strength, times)[i].unsqueeze(-1)
        own = own + share * values[i]
        q = q - share * keys[i] if w.erase else q
    return (q if w.log_decay is None else q * _cut(w.log_decay, times)[0].exp()), own


def _cut(x: Tensor, times: int) -> tuple[Tensor, ...]:
    """(B, H, M times, ...) as (B, H, M, ...) of each of the writes."""
    return x.unflatten(2, (-1, times)).unbind(3)
