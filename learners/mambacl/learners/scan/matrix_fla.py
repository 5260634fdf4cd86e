"""Recurrences with a matrix state on a GPU: the chunked Triton kernels of flash-linear-attention.

Their products of matrices are in TF32, with ten bits behind the point.

Legend: B episodes, H heads, L tokens, K key size, V value size.
"""

from functools import cache

import torch
from torch import Tensor

from mambacl.learners.scan.writes import Writes


def scan(w: Writes, state: Tensor) -> tuple[Tensor | None, Tensor]:
    """See `mambacl.learners.scan.matrix.scan`; the kernels take tokens before heads, and as many keys as values."""
    H = w.value.shape[1]
    # They always form outputs: without queries the keys stand in for them, and their outputs are dropped.
    q, k = ((x if x.shape[1] == H else x.expand(-1, H, -1, -1)) for x in (w.key if w.query is None else w.query, w.key))
    q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, w.value))
    g = None if w.log_decay is None else w.log_decay.transpose(1, 2).contiguous()
    b = None if w.strength is None else w.strength.transpose(1, 2).contiguous()
    options = {"scale": 1.0, "initial_state": state, "output_final_state": True}
    if not w.erase:
        from fla.ops.simple_gla import chunk_simple_gla  # pyright: ignore[reportMissingImports]

        k = k if b is None else k * b.unsqueeze(-1)
        y, after = chunk_simple_gla(q, k, v, g=None if g is None else g.squeeze(-1), **options)
    elif g is not None and g.shape[-1] > 1:
        from fla.ops.kda import chunk_kda  # pyright: ignore[reportMissingImports]

        y, after = chunk_kda(q, k, v, g=g, beta=b, **options)
    else:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule  # pyright: ignore[reportMissingImports]

        g = v.new_zeros(v.shape[:3]) if g is None else g.squeeze(-1)
        y, after = chunk_gated_delta_rule(q, k, v, g=g, beta=b, **options)
    return (None if w.query is None else y.transpose(1, 2)), after


@cache
def missing() -> str | None:
    """Why the kernels cannot run in this process, or None if a tiny scan and its adjoint have just run on the GPU.

    With decays: for these some of Triton's versions make wrong adjoints on some GPUs, which the library then refuses to run.
    """
    try:
        ones = torch.ones(1, 1, 1, 16, device="cuda", requires_grad=True)
        with torch.enable_grad():
            _, after = scan(Writes(ones, ones, ones, -ones[..., :1], None), ones.new_zeros(1, 1, 16, 16))
            after.sum().backward()
        torch.cuda.synchronize()
    except Exception as error:  # a broken installation may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
