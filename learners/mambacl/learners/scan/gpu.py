"""Selective scan and selective read on a GPU: the Triton kernels and their adjoints as differentiable torch functions.

Legend: B episodes, M queries, L tokens, E inner width, N state size, K chunks of tokens, G tiles of channels.

With TRITON_INTERPRET=1 in the environment before Triton is first imported they run on the CPU in its interpreter, very
slowly: so they can be tested anywhere.
"""

from functools import cache
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import Tensor
from triton import language  # pyright: ignore[reportMissingImports]

from mambacl.learners.scan import gpu_kernels
from mambacl.learners.scan.shapes import check, check_first_order

HALF = True  # takes tokens in half precision as they are
INTERPRETED = not isinstance(language.cdiv, triton.JITFunction)  # Triton's own functions tell how it was imported
CHUNK = 8  # tokens between two saved states; of 16 the compiler takes four times as long, and registers spill
TILE = (
    16  # channels of a program: more would leave a GPU idle on few episodes, fewer make more partial sums of dB and dC
)
FORWARD, BACKWARD = 512, 256  # numbers of the state that a warp holds; backward has those before each token of a chunk
WARPS = 16  # most in a program
LOG2E = 1.4426950408889634


@torch.compiler.disable  # as it is, whatever torch compiles around it
def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor | None,
    D_E: Tensor | None,
    h_BEN: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """See `mambacl.learners.scan.selective_scan`; on a GPU. A, D and the state in float32 or float64, tokens in it or half."""
    inputs = u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN
    check(*inputs, half=True)
    _check_kernel(u_BLE, A_EN)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return _Scan.apply(save, *inputs)


@torch.compiler.disable
def selective_read(
    u_BME: Tensor,
    delta_BME: Tensor,
    A_EN: Tensor,
    B_BMN: Tensor,
    C_BMN: Tensor,
    D_E: Tensor | None,
    h_BEN: Tensor,
) -> Tensor:
    """See `mambacl.learners.scan.selective_read`; dtypes as in `selective_scan`."""
    check(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN, half=True)
    _check_kernel(u_BME, A_EN)
    return _Read.apply(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)


@cache
def missing() -> str | None:
    """Why the kernels cannot run in this process, or None if a tiny scan has just run on the GPU."""
    try:
        x_BLE = torch.ones(1, 1, 1, device="cuda")
        selective_scan(x_BLE, x_BLE, -x_BLE[0], x_BLE, x_BLE, None, None)  # pyright: ignore[reportCallIssue]
        torch.cuda.synchronize()
    except Exception as error:  # a broken installation may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _check_kernel(u_BLE: Tensor, A_EN: Tensor) -> None:
    devices = ("cuda", "cpu") if INTERPRETED else ("cuda",)
    if u_BLE.device.type not in devices or A_EN.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the triton kernel takes A in float32 or float64 on a GPU, not {A_EN.dtype} on {A_EN.device}")


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, save, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN):
        (B, L, E), N = u_BLE.shape, A_EN.shape[1]
        h_BNE = A_EN.new_zeros(B, N, E) if h_BEN is None else _copy(h_BEN.transpose(1, 2))
        h_BKNE = A_EN.new_empty(B, triton.cdiv(L, CHUNK), N, E) if save else None
        y_BLE = None if C_BLN is None else u_BLE.new_empty(B, L, E)
        _forward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE, queries=False)
        if save:
            ctx.save_for_backward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BKNE)
        ctx.set_materialize_grads(False)
        return y_BLE, h_BNE.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None):
        dy_BLE, dh_BEN = grad_outputs
        return None, *_backward(ctx.saved_tensors, dy_BLE, dh_BEN, ctx.needs_input_grad[1:], queries=False)


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN):
        h_BNE, y_BME = h_BEN.transpose(1, 2).contiguous(), u_BME.new_empty(u_BME.shape)
        _forward(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BNE, None, y_BME, queries=True)
        ctx.save_for_backward(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)
        return y_BME

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor):
        *inputs, h_BEN = ctx.saved_tensors
        h_B1NE = h_BEN.transpose(1, 2).unsqueeze(1)
        return _backward((*inputs, h_B1NE), grad_outputs[0], None, ctx.needs_input_grad, queries=True)


def _forward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE, queries: bool) -> None:
    """Fill y_BLE and h_BKNE unless they are None, and move h_BNE to the end."""
    inputs = _kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E)
    _run(
        *(gpu_kernels.forward, FORWARD, u_BLE.shape, A_EN.shape[1]),
        *(*inputs, h_BNE, h_BKNE, y_BLE),
        SAVES=h_BKNE is not None,
        OUTPUTS=y_BLE is not None,
        DIRECT=D_E is not None,
        QUERIES=queries,
    )


def _backward(
    saved: tuple[Any, ...], dy_BLE: Tensor | None, dh_BEN: Tensor | None, needed: tuple[bool, ...], queries: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of u, delta, A, B, C, D and h where they are needed, else None."""
    check_first_order("triton")
    u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BKNE = saved
    (B, L, E), N, outputs = u_BLE.shape, A_EN.shape[1], dy_BLE is not None
    dh_BNE = A_EN.new_zeros(B, N, E) if dh_BEN is None else _copy(dh_BEN.transpose(1, 2))
    du_BLE, ddelta_BLE, dA_BNE = u_BLE.new_empty(B, L, E), delta_BLE.new_empty(B, L, E), A_EN.new_empty(B, N, E)
    dB_GBLN = A_EN.new_empty(triton.cdiv(E, TILE), B, L, N)
    dC_GBLN = torch.empty_like(dB_GBLN) if outputs else None
    dD_BE = A_EN.new_empty(B, E) if outputs and D_E is not None else None
    _run(
        *(gpu_kernels.backward, BACKWARD, u_BLE.shape, N),
        *_kernel_inputs(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E),
        *(h_BKNE.contiguous(), None if dy_BLE is None else dy_BLE.contiguous()),
        *(du_BLE, ddelta_BLE, dA_BNE, dB_GBLN, dC_GBLN, dD_BE, dh_BNE),
        OUTPUTS=outputs,
        DIRECT=dD_BE is not None,
        QUERIES=queries,
    )
    gradients = (
        du_BLE,
        ddelta_BLE,
        dA_BNE.sum(0).t(),
        dB_GBLN.sum(0).to(B_BLN.dtype),
        None if dC_GBLN is None else dC_GBLN.sum(0).to(C_BLN.dtype),
        None if dD_BE is None else dD_BE.sum(0),
        dh_BNE.transpose(1, 2),
    )
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


def _kernel_inputs(*inputs: Tensor | None) -> list[Tensor | None]:
    """What both kernels begin with: all contiguous, A transposed and in units of log 2."""
    u_BLE, delta_BLE, A_EN, *rest = inputs
    assert A_EN is not None
    return [x if x is None else x.contiguous() for x in (u_BLE, delta_BLE, (A_EN * LOG2E).t(), *rest)]


def _run(kernel: Any, numbers: int, shape: torch.Size, N: int, *tensors: Tensor | None, **flags: bool) -> None:
    """Run a kernel on all episodes and tiles; `numbers` of the state to a warp. Sizes alone decide how, so bits stay equal."""
    B, L, E = shape
    state = triton.next_power_of_2(N)
    warps = min(WARPS, max(1, TILE * state // numbers))
    if B * E:
        with torch.cuda.device_of(tensors[0]):
            kernel[B, triton.cdiv(E, TILE)](
                *tensors, L, E, N, **flags, CHUNK=CHUNK, TILE=TILE, STATE=state, num_warps=warps, enable_fp_fusion=True
            )


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)
