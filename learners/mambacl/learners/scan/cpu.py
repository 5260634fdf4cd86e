"""Selective scan and selective read on the CPU: the numba kernels and their adjoints as differentiable torch functions.

Legend: B episodes, M queries, L tokens, E inner width, N state size, K chunks of tokens, G groups of tiles.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mambacl.learners.scan import kernels, team
from mambacl.learners.scan.kernels import BLOCK, CHUNK, LOG2E, OUTPUTS, QUERIES, STATE, TILE
from mambacl.learners.scan.shapes import check, check_first_order

SHARES = 4  # shares of a call for each thread: a thread held up by other work takes fewer of them
SMALL = 1 << 17  # B x L x E x N under which a second thread costs more than it brings
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
        h_BNE = u_BLE.new_zeros(B, N, E) if h_BEN is None else _copy(h_BEN.transpose(1, 2))
        h_BKNE = u_BLE.new_empty(B, max(1, -(-L // CHUNK)) if save else 0, N, E)
        y_BLE = None if C_BLN is None else u_BLE.new_empty(B, L, E)
        want = STATE if C_BLN is None else OUTPUTS
        _forward(want, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE)
        if save:
            ctx.save_for_backward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BKNE)
        ctx.set_materialize_grads(False)
        return y_BLE, h_BNE.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None):
        check_first_order("numba")
        dy_BLE, dh_BEN = grad_outputs
        want = STATE if dy_BLE is None else OUTPUTS
        return None, *_backward(want, ctx.saved_tensors, dy_BLE, dh_BEN, ctx.needs_input_grad[1:])


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN):
        h_BNE = h_BEN.transpose(1, 2).contiguous()
        y_BME = u_BME.new_empty(u_BME.shape)
        _forward(QUERIES, u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BNE, h_BNE.new_empty(0, 0, 0, 0), y_BME)
        ctx.save_for_backward(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)
        return y_BME

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        check_first_order("numba")
        *inputs, h_BEN = ctx.saved_tensors
        h_B1NE = h_BEN.transpose(1, 2).unsqueeze(1)
        return _backward(QUERIES, (*inputs, h_B1NE), grad_outputs[0], None, ctx.needs_input_grad)


def _forward(want, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE) -> None:
    """Fill y_BLE (unless None) and h_BKNE, and move h_BNE to the end."""
    inputs = _kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E)
    B, _, E = u_BLE.shape
    _run(kernels.forward, want, B * -(-E // TILE), *inputs, h_BNE, h_BKNE, _or_nothing(y_BLE, u_BLE))


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
    (B, L, E), N = u_BLE.shape, A_EN.shape[1]
    G = max(1, min(-(-E // TILE), -(-PARTS // max(1, B))))
    dh_BNE = u_BLE.new_zeros(B, N, E) if dh_BEN is None else _copy(dh_BEN.transpose(1, 2))
    du_BLE, ddelta_BLE, dA_BNE = u_BLE.new_empty(B, L, E), u_BLE.new_empty(B, L, E), u_BLE.new_empty(B, N, E)
    dB_GBLN, dC_GBLN, dD_BE = u_BLE.new_zeros(G, B, L, N), u_BLE.new_zeros(G, B, L, N), u_BLE.new_zeros(B, E)
    outputs = du_BLE, ddelta_BLE, dA_BNE, dB_GBLN, dC_GBLN, dD_BE, dh_BNE
    _run(kernels.backward, want, B * G, *inputs, h_BKNE, _or_nothing(dy_BLE, u_BLE), *outputs)
    gradients = (
        du_BLE,
        ddelta_BLE,
        dA_BNE.sum(0).t(),
        dB_GBLN.sum(0),
        dC_GBLN.sum(0),
        dD_BE.sum(0),
        dh_BNE.transpose(1, 2),
    )
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


def _kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E) -> list[Tensor]:
    """What both kernels begin with: absent tensors replaced, A transposed and in units of log 2."""
    # the kernels' exp2 works on bits and trusts a NaN to carry no payload
    rate_EN = (A_EN * LOG2E).nan_to_num(nan=math.nan, posinf=math.inf, neginf=-math.inf)
    C_BLN = B_BLN if C_BLN is None else C_BLN  # not read
    D_E = A_EN.new_zeros(len(A_EN)) if D_E is None else D_E
    return [u_BLE, delta_BLE, rate_EN.t(), B_BLN, C_BLN, D_E]


def _or_nothing(x_BLE: Tensor | None, u_BLE: Tensor) -> Tensor:
    return u_BLE.new_empty(0, 0, 0) if x_BLE is None else x_BLE


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _run(kernel: Callable[..., None], want: int, items: int, *tensors: Tensor) -> None:
    """Run a kernel over all its items (episodes x tiles or groups of tiles), on as many threads as torch has.

    Which thread takes which item makes no difference to a result: no two items write to the same place.
    """
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    u_BLE, _, rate_NE, *_ = arrays
    real = u_BLE.dtype.type
    threads = max(1, min(torch.get_num_threads(), items)) if u_BLE.size * len(rate_NE) > SMALL else 1
    shares = min(SHARES * threads, items) if threads > 1 else 1
    todo = iter(range(shares))

    def work() -> None:
        space = [_records(kernels.token_record(real), CHUNK), _records(kernels.entry_record(real), len(rate_NE))]
        if kernel is kernels.backward:
            space.append(_records(kernels.step_record(real), CHUNK + 1, BLOCK))
        for share in todo:
            kernel(share, shares, want, *space, *arrays)

    team.run(work, threads)


def _records(record: np.dtype, *shape: int) -> np.ndarray:
    """Workspace of a thread, from torch because it aligns to cache lines: unaligned vectors cost twice."""
    return torch.empty(*shape, record.itemsize, dtype=torch.uint8).numpy().view(record)[..., 0]
