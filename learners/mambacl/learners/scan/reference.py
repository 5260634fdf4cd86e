"""Slow reference of the selective scan and read: the formulas of Mamba-1 in plain torch, for any device and dtype.

Legend: B episodes, M queries, L tokens, E inner width, N state size.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t        y_t = C_t . h_t + D u_t

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), discretised as in its code
(`selective_scan_ref`): exponential for A, Euler for B.
"""

import torch
from torch import Tensor

from mambacl.learners.scan.shapes import check


def selective_scan(
    u_BLE: Tensor,
    delta_BLE: Tensor,
    A_EN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor | None,
    D_E: Tensor | None,
    h_BEN: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """One step after the other; see `mambacl.learners.scan.selective_scan`."""
    check(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN)
    h_BEN = u_BLE.new_zeros(len(u_BLE), *A_EN.shape) if h_BEN is None else h_BEN
    h_LBEN = []
    # unbind, not x[:, t]: the gradient of an index is a full tensor of zeros at every step
    for u_BE, delta_BE, B_BN in zip(u_BLE.unbind(1), delta_BLE.unbind(1), B_BLN.unbind(1), strict=True):
        decay_BEN = torch.exp(delta_BE[..., None] * A_EN)
        h_BEN = decay_BEN * h_BEN + (delta_BE * u_BE)[..., None] * B_BN[:, None]
        h_LBEN.append(h_BEN)
    if C_BLN is None:
        return None, h_BEN
    y_LBE = [torch.einsum("ben,bn->be", h_BEN, C_BN) for h_BEN, C_BN in zip(h_LBEN, C_BLN.unbind(1), strict=True)]
    y_BLE = torch.stack(y_LBE, 1) if y_LBE else torch.zeros_like(u_BLE)
    return (y_BLE if D_E is None else y_BLE + D_E * u_BLE), h_BEN


def selective_read(
    u_BME: Tensor,
    delta_BME: Tensor,
    A_EN: Tensor,
    B_BMN: Tensor,
    C_BMN: Tensor,
    D_E: Tensor | None,
    h_BEN: Tensor,
) -> Tensor:
    """All queries at once, so with B x M x E x N numbers in between; see `mambacl.learners.scan.selective_read`."""
    check(u_BME, delta_BME, A_EN, B_BMN, C_BMN, D_E, h_BEN)
    decay_BMEN = torch.exp(delta_BME[..., None] * A_EN)
    y_BME = torch.einsum("bmen,bmn->bme", decay_BMEN * h_BEN[:, None], C_BMN)
    y_BME = y_BME + (B_BMN * C_BMN).sum(-1, keepdim=True) * delta_BME * u_BME
    return y_BME if D_E is None else y_BME + D_E * u_BME
