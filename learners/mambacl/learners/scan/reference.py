"""Slow reference of the selective scan: the formulas of Mamba-1 in plain torch, for any device and dtype.

Legend: B episodes, M queries, L tokens, E inner width, N state size.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t        y_t = C_t . h_t + D u_t

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), and `selective_scan_ref` of its code.
"""

import torch
from torch import Tensor


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
    h_BEN = u_BLE.new_zeros(u_BLE.shape[0], *A_EN.shape) if h_BEN is None else h_BEN
    states_LBEN = []
    # unbind, not indexing: the gradient of x[:, t] would be a full tensor of zeros at every step
    for u_BE, delta_BE, B_BN in zip(u_BLE.unbind(1), delta_BLE.unbind(1), B_BLN.unbind(1), strict=True):
        decay_BEN = torch.exp(delta_BE.unsqueeze(-1) * A_EN)
        h_BEN = decay_BEN * h_BEN + (delta_BE * u_BE).unsqueeze(-1) * B_BN.unsqueeze(1)
        states_LBEN.append(h_BEN)
    if C_BLN is None:
        return None, h_BEN
    y_LBE = [(h_BEN @ C_BN.unsqueeze(-1)).squeeze(-1) for h_BEN, C_BN in zip(states_LBEN, C_BLN.unbind(1), strict=True)]
    y_BLE = torch.stack(y_LBE, 1)
    return (y_BLE if D_E is None else y_BLE + D_E * u_BLE), h_BEN
