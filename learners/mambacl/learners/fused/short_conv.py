"""Depthwise causal convolution over a stream, with the SiLU behind it where one is. Shapes: W filter width, E channels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.fused.conv import CHANNELS
from mambacl.learners.fused.operation import Gradients, Operation, run

TILE = 256
"""Channels of an item of work."""


def short_conv(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    """y_t = bias + sum_k weight_k x_{t - W + 1 + k}, then its SiLU if asked for.

    Args:
        x: inputs (B, L, E).
        state: the W - 1 inputs before them (B, W - 1, E).
        weight, bias: (W, E) and (E,).

    Returns:
        Outputs (B, L, E), and the last W - 1 inputs (B, W - 1, E).
    """
    operation = _plain if x.shape[-1] % CHANNELS else _short_conv
    return operation(x, state, weight, bias, silu=silu)


def _plain(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor, *, silu: bool) -> tuple[Tensor, Tensor]:
    window = torch.cat([state, x], dim=1)
    length = x.shape[1]
    y = bias + weight[0] * window[:, :length]
    for shift in range(1, len(weight)):
        y = torch.addcmul(y, weight[shift], window[:, shift : shift + length])
    return F.silu(y) if silu else y, window[:, length:]


def _forward(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor, *, silu: bool) -> tuple[Tensor, Tensor]:
    y, (B, L, E), past = torch.empty_like(x), x.shape, state.shape[1]
    run("short_conv", B * -(-E // TILE), TILE, silu, x, state, weight, bias, y)
    return y, torch.cat([state, x[:, max(0, L - past) :]], dim=1).narrow(1, min(L, past), past).contiguous()


def _backward(
    gradients: tuple[Tensor, Tensor], x: Tensor, state: Tensor, weight: Tensor, bias: Tensor, *, silu: bool
) -> Gradients:
    (dy, d_after), (B, _, E) = gradients, x.shape
    dx, d_state = torch.empty_like(x), torch.empty_like(state)
    d_weight, d_bias = x.new_zeros(B, *weight.shape), x.new_zeros(B, E)
    inputs, outputs = (x, state, weight, bias, dy, d_after), (dx, d_state, d_weight, d_bias)
    run("short_conv_adjoint", B * -(-E // TILE), TILE, silu, *inputs, *outputs)
    return dx, d_state, d_weight.sum(0), d_bias.sum(0)


_short_conv = Operation(_plain, _forward, _backward)
