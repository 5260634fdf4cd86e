"""Selective scan of Mamba-1 and independent reads from its state, by the fastest kernel that runs on a device.

Legend: B episodes, M queries, L tokens, E inner width, N state size.

    numba      CPU: fused loops with a hand-written adjoint (cpu.py, kernels.py)
    triton     GPU: the same in Triton (gpu.py, gpu_kernels.py)
    mamba_ssm  GPU: the compiled scan of mamba-ssm, completed by initial and final states (cuda.py)
    reference  anywhere, slow: one step after the other in plain torch (reference.py)

Which one is live, and why, is said once per process and device in the log `mambacl`; a slow one is a warning.
"""

from torch import Tensor

from mambacl.learners.scan.dispatch import Kernel, Recurrence
from mambacl.learners.scan.shapes import widened

__all__ = ["SELECTIVE", "selective_read", "selective_scan"]

SELECTIVE = Recurrence(
    "selective scan",
    (
        ("numba", Kernel("cpu", "cpu", "pip install numba")),
        ("triton", Kernel("gpu", "cuda", "pip install triton")),
        ("mamba_ssm", Kernel("cuda", "cuda", "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm")),
        ("reference", Kernel("reference", None)),
    ),
)


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

    Differentiable once in every tensor, through the outputs and through the final state. Tokens u, delta, B and C may be in
    half precision, as autocast makes them; the state and all sums are in the dtype of A.

    Args:
        u_BLE: inputs (B, L, E).
        delta_BLE: step sizes (B, L, E), positive (after softplus).
        A_EN: rates (E, N), negative; 1 / (delta |A|) is the memory in tokens.
        B_BLN: input weights (B, L, N), shared by all channels.
        C_BLN: output weights (B, L, N), or None if only the final state is wanted, which is cheaper.
        D_E: weights (E,) of the direct path from input to output; None for none.
        h_BEN: state before the first token (B, E, N); None for zeros. Not modified.
        kernel: "auto", "numba", "triton", "mamba_ssm" or "reference".

    Returns:
        Outputs (B, L, E), None without C, and the state (B, E, N) after the last token. Its memory may be laid out as
        (B, N, E), which scans and reads that continue from it take without a copy.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or an unknown kernel.
        KernelError: the kernel asked for cannot run here.

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023).
    """
    module = SELECTIVE.module(u_BLE.device.type, kernel)
    if not hasattr(module, "HALF"):
        u_BLE, delta_BLE, B_BLN = (widened(x, A_EN.dtype) for x in (u_BLE, delta_BLE, B_BLN))
        C_BLN = None if C_BLN is None else widened(C_BLN, A_EN.dtype)
    return module.selective_scan(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN)


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
        ValueError, KernelError: as `selective_scan`.
    """
    module = SELECTIVE.module(u_BME.device.type, kernel)
    if not hasattr(module, "HALF"):
        u_BME, delta_BME, B_BMN, C_BMN = (widened(x, A_EN.dtype) for x in (u_BME, delta_BME, B_BMN, C_BMN))
    return module.selective_read(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)
