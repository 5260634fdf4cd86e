"""Selective scan and read on a GPU: mamba-ssm's compiled scan, with the initial and the final state that it lacks.

Legend: B episodes, M queries, L tokens, E inner width, N state size, T tokens of a piece.

`selective_scan_fn` takes no initial state, and the last state that it returns has no gradient. With S_t the sum of delta
up to token t, both follow from exponentials whose exponents are never positive for A < 0, so no stream is too long:

    h_L = exp(A S_L) h_0 + sum_t exp(A (S_L - S_t)) delta_t B_t u_t
    y_t = (output of the scan that starts at zero) + C_t . (exp(A S_t) h_0)

They are plain torch, in pieces of tokens that backward computes once more: memory does not grow with L x E x N.
"""

from functools import cache

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mambacl.learners.scan import reference
from mambacl.learners.scan.shapes import check

PIECE = 1 << 26  # numbers in an intermediate (B, T, E, N): 256 MiB in float32
LARGEST_STATE = 256  # N that mamba-ssm is compiled for


def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor | None,
    D_E: Tensor | None,
    h_BEN: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """See `mambacl.learners.scan.selective_scan`; on a GPU, in float32, for N up to 256."""
    check(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN)
    _check_kernel(u_BLE, A_EN)
    h_last_BEN = final_state(u_BLE, delta_BLE, A_EN, B_BLN, h_BEN)
    if C_BLN is None:
        return None, h_last_BEN
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    u_BEL, delta_BEL, B_BNL, C_BNL = (x.transpose(1, 2) for x in (u_BLE, delta_BLE, B_BLN, C_BLN))
    y_BLE = selective_scan_fn(u_BEL, delta_BEL, A_EN, B_BNL, C_BNL, D_E).transpose(1, 2)
    return (y_BLE if h_BEN is None else y_BLE + outputs_of_initial_state(delta_BLE, A_EN, C_BLN, h_BEN)), h_last_BEN


def selective_read(
    u_BME: Tensor,
    delta_BME: Tensor,
    A_EN: Tensor,
    B_BMN: Tensor,
    C_BMN: Tensor,
    D_E: Tensor | None,
    h_BEN: Tensor,
) -> Tensor:
    """See `mambacl.learners.scan.selective_read`; the formula of the reference, in pieces of queries."""
    T = _piece(u_BME, A_EN)
    pieces = zip(*(x.split(T, 1) for x in (u_BME, delta_BME, B_BMN, C_BMN)), strict=True)
    y_BTE = [_again(reference.selective_read, u, delta, A_EN, B, C, D_E, h_BEN) for u, delta, B, C in pieces]
    return torch.cat(y_BTE, 1)


def final_state(u_BLE: Tensor, delta_BLE: Tensor, A_EN: Tensor, B_BLN: Tensor, h_BEN: Tensor | None) -> Tensor:
    """State (B, E, N) after the last token, on any device; differentiable in all arguments, stable for A < 0."""
    h_BEN = u_BLE.new_zeros(len(u_BLE), *A_EN.shape) if h_BEN is None else h_BEN
    T = _piece(u_BLE, A_EN)
    for u_BTE, delta_BTE, B_BTN in zip(*(x.split(T, 1) for x in (u_BLE, delta_BLE, B_BLN)), strict=True):
        h_BEN = _again(_state_after_piece, u_BTE, delta_BTE, A_EN, B_BTN, h_BEN)
    return h_BEN


def outputs_of_initial_state(delta_BLE: Tensor, A_EN: Tensor, C_BLN: Tensor, h_BEN: Tensor) -> Tensor:
    """What an initial state adds to the outputs (B, L, E) of a scan; differentiable in all arguments."""
    T = _piece(delta_BLE, A_EN)
    pieces = zip(delta_BLE.cumsum(1).split(T, 1), C_BLN.split(T, 1), strict=True)
    return torch.cat([_again(_outputs_of_state, S_BTE, A_EN, C_BTN, h_BEN) for S_BTE, C_BTN in pieces], 1)


@cache
def missing() -> str | None:
    """Why mamba-ssm's scan cannot run in this process, or None if a tiny scan has just run on the GPU.

    `import mamba_ssm` proves nothing, since pip installs it without its extension unless told otherwise.
    """
    try:
        import selective_scan_cuda  # noqa: F401  # pyright: ignore[reportMissingImports]
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

        x_BEL, A_EN = torch.ones(1, 1, 1, device="cuda"), -torch.ones(1, 1, device="cuda")
        selective_scan_fn(x_BEL, x_BEL, A_EN, x_BEL, x_BEL)
        torch.cuda.synchronize()
    except Exception as error:  # a broken installation may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _check_kernel(u_BLE: Tensor, A_EN: Tensor) -> None:
    N = A_EN.shape[1]
    if u_BLE.device.type != "cuda" or u_BLE.dtype != torch.float32 or N > LARGEST_STATE:
        raise ValueError(
            f"the mamba_ssm kernel takes float32 on a GPU and N up to {LARGEST_STATE}, "
            f"not {u_BLE.dtype} on {u_BLE.device} and N = {N}"
        )


def _state_after_piece(u_BTE: Tensor, delta_BTE: Tensor, A_EN: Tensor, B_BTN: Tensor, h_BEN: Tensor) -> Tensor:
    # sums from the end, not differences of sums from the beginning: recent tokens, which count most, stay exact
    from_here_BTE = delta_BTE.flip(1).cumsum(1).flip(1)
    later_BTE = torch.cat([from_here_BTE[:, 1:], torch.zeros_like(delta_BTE[:, :1])], 1)
    decay_BTEN = torch.exp(later_BTE[..., None] * A_EN)
    written_BEN = torch.einsum("bten,bte,btn->ben", decay_BTEN, delta_BTE * u_BTE, B_BTN)
    return torch.exp(from_here_BTE[:, 0, :, None] * A_EN) * h_BEN + written_BEN


def _outputs_of_state(S_BTE: Tensor, A_EN: Tensor, C_BTN: Tensor, h_BEN: Tensor) -> Tensor:
    return torch.einsum("bten,ben,btn->bte", torch.exp(S_BTE[..., None] * A_EN), h_BEN, C_BTN)


def _piece(x_BLE: Tensor, A_EN: Tensor) -> int:
    B, _, E = x_BLE.shape
    return max(1, PIECE // max(1, B * E * A_EN.shape[1]))


def _again(function, *inputs: Tensor | None) -> Tensor:
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
