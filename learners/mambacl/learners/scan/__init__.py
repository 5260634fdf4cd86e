"""Selective scan of Mamba-1 and independent reads from its state, by the fastest kernel that runs on a device.

Legend: B episodes, M queries, L tokens, E inner width, N state size.

    numba      CPU: fused loops with a hand-written adjoint (cpu.py, kernels.py)
    mamba_ssm  GPU: the compiled scan of mamba-ssm, completed by initial and final states (cuda.py)
    reference  anywhere, slow: one step after the other in plain torch (reference.py)

Which one is live, and why, is said once per process and device in the log `mambacl`; a slow one is a warning.
"""

import importlib
import logging
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["describe", "selective_read", "selective_scan"]

_MODULES = {"numba": "cpu", "mamba_ssm": "cuda", "reference": "reference"}
_FASTEST = {"cpu": "numba", "cuda": "mamba_ssm"}


def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor | None,
    D_E: Tensor | None = None,
    h_BEN: Tensor | None = None,
    *,
    kernel: str = "auto",
) -> tuple[Tensor | None, Tensor]:
    """Run Mamba-1 over streams: h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t and y_t = C_t . h_t + D u_t.

    Differentiable once in every tensor, through the outputs and through the final state.

    Args:
        u_BLE: inputs (B, L, E).
        delta_BLE: step sizes (B, L, E), positive (after softplus).
        A_EN: rates (E, N), negative; 1 / (delta |A|) is the memory in tokens.
        B_BLN: input weights (B, L, N), shared by all channels.
        C_BLN: output weights (B, L, N), or None if only the final state is wanted, which is cheaper.
        D_E: weights (E,) of the direct path from input to output; None for none.
        h_BEN: state before the first token (B, E, N); None for zeros. Not modified.
        kernel: "auto", "numba", "mamba_ssm" or "reference".

    Returns:
        Outputs (B, L, E), None without C, and the state (B, E, N) after the last token. Its memory may be laid out as
        (B, N, E), which scans and reads that continue from it take without a copy.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or an unknown kernel.
        RuntimeError: the kernel asked for cannot run here.

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023).
    """
    return _module(u_BLE.device.type, kernel).selective_scan(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN)


def selective_read(
    u_BME: Tensor,
    delta_BME: Tensor,
    A_EN: Tensor,
    B_BMN: Tensor,
    C_BMN: Tensor,
    D_E: Tensor | None,
    h_BEN: Tensor,
    *,
    kernel: str = "auto",
) -> Tensor:
    """Answer M queries of each episode, each by one step of its own from the same state, which stays as it is.

    y_m = C_m . (exp(delta_m A) h + delta_m B_m u_m) + D u_m: a query is written before it is read. Differentiable once
    in every tensor.

    Args:
        u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E: as in `selective_scan`, with queries instead of tokens.
        h_BEN: state to read from (B, E, N).
        kernel: as in `selective_scan`.

    Returns:
        Outputs (B, M, E).

    Raises:
        ValueError, RuntimeError: as `selective_scan`.
    """
    return _module(u_BME.device.type, kernel).selective_read(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)


def describe(device: torch.device | str, kernel: str = "auto") -> tuple[str, str]:
    """Name of the kernel that runs on a device, and the reason why it is this one.

    Raises:
        ValueError: unknown kernel.
        RuntimeError: the kernel asked for cannot run there; says how to get it.
    """
    device = torch.device(device).type
    if kernel == "auto":
        fastest = _FASTEST.get(device)
        obstacle = f"there is no kernel for {device}" if fastest is None else _obstacle(fastest, device)
        if fastest is None or obstacle:
            return "reference", f"slow: {obstacle}"
        return fastest, f"fastest on {device}"
    if kernel not in _MODULES:
        raise ValueError(f'unknown kernel "{kernel}": choose "auto" or one of {", ".join(_MODULES)}')
    if obstacle := _obstacle(kernel, device):
        raise RuntimeError(f"kernel {kernel} cannot run on {device}: {obstacle}")
    return kernel, "asked for"


def _obstacle(kernel: str, device: str) -> str | None:
    """What keeps a kernel from running on a type of device, and how to get it; None if nothing does."""
    if device != {"numba": "cpu", "mamba_ssm": "cuda"}.get(kernel, device):
        return f"{kernel} runs on {'the CPU' if kernel == 'numba' else 'an NVIDIA GPU'} only"
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES[kernel]}")
    except ImportError as error:
        return f"{error}; pip install numba"
    if kernel == "mamba_ssm" and (missing := module.missing()):
        return f"{missing}; MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm"
    return None


@cache
def _module(device: str, kernel: str) -> ModuleType:
    """The module to call; what runs is announced when a process first needs it."""
    name, reason = describe(device, kernel)
    level = logging.WARNING if reason.startswith("slow") else logging.INFO
    logging.getLogger("mambacl").log(level, "selective scan on %s: %s kernel (%s)", device, name, reason)
    return importlib.import_module(f"{__name__}.{_MODULES[name]}")
