"""Selective scan and selective read on the CPU: the numba kernels and their adjoints as differentiable torch functions.

Legend: B episodes, M queries, L tokens, E inner width, N state size, K chunks of tokens, G groups of tiles.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.scan import kernels, team
from mambacl.learners.scan.kernels import (
    BLOCK,
    CHUNK,
    ENTRY,
    LOG2E,
    OUTPUTS,
    QUERIES,
    REGISTER,
    STATE,
    STEP,
    SUM,
    TILE,
    TOKEN,
)
from mambacl.learners.scan.shapes import check, check_first_order

SMALL = 1 << 18  # B x L x E x N under which a second thread costs more than it brings
PARTS = 64  # partial sums of gradients in a call, and so the most threads that backward can use


def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor | None,
    D_E: Tensor | None,
    h_BEN: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """See `mambacl.learners.scan.selective_scan`; on the CPU, in float32 or float64."""
    inputs = u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN
    check(*inputs)
    _check_kernel(u_BLE)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return _Scan.apply(save, *inputs)


def selective_read(
    u_BME: Tensor,
    delta_BME: Tensor,
    A_EN: Tensor,
    B_BMN: Tensor,
    C_BMN: Tensor,
    D_E: Tensor | None,
    h_BEN: Tensor,
) -> Tensor:
    """See `mambacl.learners.scan.selective_read`; on the CPU, in float32 or float64."""
    check(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)
    _check_kernel(u_BME)
    return _Read.apply(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)


def warm_up() -> float:
    """Compile the float32 kernels, or load them from numba's cache; returns the seconds it took."""
    start = time.perf_counter()
    with torch.inference_mode(False), torch.enable_grad():
        x_BLE = torch.ones(1, 1, 1, requires_grad=True)
        _, h_BEN = selective_scan(x_BLE, x_BLE, -torch.ones(1, 1), x_BLE, None, None, None)
        h_BEN.sum().backward()
    return time.perf_counter() - start


def _check_kernel(u_BLE: Tensor) -> None:
    if u_BLE.device.type != "cpu" or u_BLE.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the numba kernel takes float32 or float64 on the CPU, not {u_BLE.dtype} on {u_BLE.device}")


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, save, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN):
        (B, L, E), N = u_BLE.shape, A_EN.shape[1]
        given = h_BEN is not None
        h_BNE = _whole(h_BEN.transpose(1, 2) if given else u_BLE.new_zeros(B, N, E), BLOCK, own=given)
        h_BKNE = u_BLE.new_empty(B, max(1, -(-L // CHUNK)) if save else 0, *h_BNE.shape[1:])
        want = STATE if C_BLN is None else OUTPUTS
        y_BLE = _forward(want, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BNE, h_BKNE)
        if save:
            ctx.save_for_backward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BKNE)
        ctx.set_materialize_grads(False)
        return y_BLE, _cut(h_BNE, N, E).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None):
        check_first_order("numba")
        dy_BLE, dh_BEN = grad_outputs
        want = STATE if dy_BLE is None else OUTPUTS
        return None, *_backward(want, ctx.saved_tensors, dy_BLE, dh_BEN, ctx.needs_input_grad[1:])


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN):
        h_BNE = _whole(h_BEN.transpose(1, 2), BLOCK)
        y_BME = _forward(QUERIES, u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BNE, h_BNE.new_empty(0, 0, 0, 0))
        ctx.save_for_backward(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)
        return y_BME

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        check_first_order("numba")
        *inputs, h_BEN = ctx.saved_tensors
        h_B1NE = _whole(h_BEN.transpose(1, 2), BLOCK).unsqueeze(1)
        return _backward(QUERIES, (*inputs, h_B1NE), grad_outputs[0], None, ctx.needs_input_grad)


def _forward(want, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BNE, h_BKNE) -> Tensor | None:
    """Return y_BLE if it is wanted, fill h_BKNE, and move h_BNE to the end."""
    inputs = _kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E)
    u = inputs[0]
    y_BLE = u.new_empty(0, 0, 0) if want == STATE else u.new_empty(u.shape)
    _run(kernels.forward, want, len(u) * _tiles(u), *inputs, h_BNE, h_BKNE, y_BLE)
    return None if want == STATE else _cut(y_BLE, len(A_EN))


def _backward(
    want: int,
    saved: tuple[Any, ...],
    dy_BLE: Tensor | None,
    dh_BEN: Tensor | None,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of u, delta, A, B, C, D and h where they are needed, else None."""
    u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BKNE = saved
    inputs = _kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E)
    (E, N), (B, _, *NE) = A_EN.shape, h_BKNE.shape
    u, rows = inputs[0], inputs[3]
    dh_BNE = u.new_zeros(B, *NE) if dh_BEN is None else _whole(dh_BEN.transpose(1, 2), BLOCK, own=True)
    dy = u.new_empty(0, 0, 0) if dy_BLE is None else _whole(dy_BLE)
    G = max(1, min(_tiles(u), -(-PARTS // max(1, B))))
    du_BLE, ddelta_BLE, dA_BNE = torch.empty_like(u), torch.empty_like(u), u.new_zeros(B, *NE)
    dB_GBLN, dC_GBLN, dD_BE = u.new_zeros(G, *rows.shape), u.new_zeros(G, *rows.shape), u.new_zeros(B, u.shape[2])
    outputs = du_BLE, ddelta_BLE, dA_BNE, dB_GBLN, dC_GBLN, dD_BE, dh_BNE
    _run(kernels.backward, want, B * G, *inputs, h_BKNE, dy, *outputs)
    gradients = (
        _cut(du_BLE, E),
        _cut(ddelta_BLE, E),
        _cut(dA_BNE.sum(0), N, E).t(),
        _cut(_total(dB_GBLN), N),
        _cut(_total(dC_GBLN), N),
        _cut(dD_BE.sum(0), E),
        _cut(dh_BNE, N, E).transpose(1, 2),
    )
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


def _kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E) -> list[Tensor]:
    """What both kernels begin with: absent tensors replaced, A transposed and in units of log 2, all of it whole."""
    # the kernels' exp2 works on bits and trusts a NaN to carry no payload
    rate_EN = (A_EN * LOG2E).nan_to_num(nan=math.nan, posinf=math.inf, neginf=-math.inf)
    B_BLN, C_BLN = (_pad(B_BLN if x is None else x, BLOCK) for x in (B_BLN, C_BLN))  # an absent C is not read
    D_E = A_EN.new_zeros(len(A_EN)) if D_E is None else D_E
    return [_whole(u_BLE), _whole(delta_BLE), _whole(rate_EN.t(), BLOCK), B_BLN, C_BLN, _whole(D_E)]


def _whole(x: Tensor, *multiples: int, own: bool = False) -> Tensor:
    """Contiguous, with whole vectors of channels."""
    padded = _pad(x, REGISTER // x.element_size(), *multiples)
    return padded.clone(memory_format=torch.contiguous_format) if own and padded is x else padded.contiguous()


def _pad(x: Tensor, *multiples: int) -> Tensor:
    """With zeros at the end of the last dimensions, the very last first, so that their sizes are such multiples."""
    missing = [-size % multiple for size, multiple in zip(reversed(x.shape), multiples, strict=False)]
    return F.pad(x, [end for more in missing for end in (0, more)]) if any(missing) else x


def _cut(x: Tensor, *sizes: int) -> Tensor:
    """Without what `_pad` has put at the end of the last dimensions. Never a view, which could not be changed in place."""
    return x if x.shape[-len(sizes) :] == sizes else x[(..., *map(slice, sizes))].clone()


def _total(x: Tensor) -> Tensor:
    """Sum over the first dimension, into its first part: of few and large parts, torch's own takes three times as long."""
    return functools.reduce(Tensor.add_, x.unbind())


def _tiles(u_BLE: Tensor) -> int:
    return -(-u_BLE.shape[2] * u_BLE.element_size() // (REGISTER * TILE))


def _run(kernel: Callable[..., None], want: int, items: int, *tensors: Tensor) -> None:
    """Run a kernel over all its items (episodes x tiles or groups of tiles), on as many threads as torch has.

    Which thread takes which item makes no difference to a result: no two items write to the same place.
    """
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    u_BLE, _, rate_NE, *_ = arrays

    def worker() -> Callable[[int, int], None]:
        space = [_vectors(u_BLE, TILE * CHUNK * TOKEN), _vectors(u_BLE, TILE * len(rate_NE) * ENTRY)]
        if kernel is kernels.backward:
            space += _vectors(u_BLE, (CHUNK + 1) * STEP * BLOCK), _vectors(u_BLE, CHUNK * SUM * BLOCK)
        return lambda begin, end: kernel(begin, end, want, *space, *arrays)

    team.share_out(worker, items, u_BLE.size * len(rate_NE) > SMALL)


def _vectors(like: np.ndarray, number: int) -> np.ndarray:
    """Workspace of a thread, from torch because it aligns to cache lines: unaligned vectors cost twice."""
    return torch.empty(number * REGISTER, dtype=torch.uint8).numpy().view(like.dtype)
