"""Checks of the arguments of a scan or a read: a kernel that trusts wrong shapes would read foreign memory.

Legend: B episodes, M queries, L tokens, E inner width, N state size.
"""

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
TOKENS = ("delta", "B", "C")


def check(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor | None,
    D_E: Tensor | None,
    h_BEN: Tensor | None,
    half: bool = False,
) -> None:
    """Raise ValueError, naming the argument, unless shapes, dtypes and devices fit together.

    half: whether u, delta, B and C may each be in half precision beside an A, D and h that are not.
    """
    if u_BLE.ndim != 3 or A_EN.ndim != 2:
        raise ValueError(f"u must be (B, L, E) and A (E, N), not {tuple(u_BLE.shape)} and {tuple(A_EN.shape)}")
    B, L, E = u_BLE.shape
    N = A_EN.shape[1]
    if N == 0:
        raise ValueError("A must be (E, N) with at least one entry of the state, not N = 0")
    if not u_BLE.is_floating_point():
        raise ValueError(f"u must hold floating-point numbers, not {u_BLE.dtype}")
    real, other = (A_EN.dtype, "A") if half and u_BLE.dtype in HALF else (u_BLE.dtype, "u")
    expected = {
        "delta": (delta_BLE, (B, L, E)),
        "A": (A_EN, (E, N)),
        "B": (B_BLN, (B, L, N)),
        "C": (C_BLN, (B, L, N)),
        "D": (D_E, (E,)),
        "h": (h_BEN, (B, E, N)),
    }
    for name, (x, shape) in expected.items():
        if x is None:
            continue
        if x.shape != torch.Size(shape):
            raise ValueError(f"{name} must be {shape} beside a u of {(B, L, E)}, not {tuple(x.shape)}")
        fits = x.dtype == real or (half and name in TOKENS and x.dtype in HALF)
        if x.device != u_BLE.device or not fits:
            raise ValueError(
                f"{name} is {x.dtype} on {x.device} but {other} is {real} on {u_BLE.device}: make them equal"
            )


def check_first_order(kernel: str) -> None:
    """Raise RuntimeError in the backward pass of a kernel whose gradients are wanted with gradients of their own.

    once_differentiable would not do: where the outputs' gradients are constants, it drops second derivatives in silence.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f'the {kernel} kernel has first derivatives only: for create_graph=True choose kernel="reference"'
        )


def widened(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Tokens in half precision, as autocast makes them, in a wider type."""
    return x.to(dtype) if x.dtype in HALF else x
