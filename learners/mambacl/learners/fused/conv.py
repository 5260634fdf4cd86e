"""Convolution of the encoder: 3 x 3, a pixel of zeros around, behind group normalisation and ReLU or by itself.

Shapes: B images of H x W pixels with C channels each, O channels come out. Channels are last: a patch is then three rows of numbers
that lie side by side, and a convolution is the product of matrices (kernels/conv.py). torch's own run at 40 % of the rate of a large
product, and what lies between two of them goes through memory.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused.linear import wide
from mambacl.learners.fused.operation import Gradients, Operation, run

GROUP = 8
"""Channels that are normalised together."""

IMAGES, CHANNELS = 8, 16
"""That many go through a kernel together; numbers of channels are multiples."""

ITEMS = 16
"""Of work in the backward pass, at most: each has sums of its own for the gradients of filters."""


def conv(x: Tensor, weight: Tensor, norm: nn.GroupNorm | None = None, stride: int = 2) -> Tensor:
    """x (B, H, W, C) with weight (O, C, 3, 3) to (B, H / stride, W / stride, O), both rounded up; there are kernels for stride 2.

    norm: what normalises x, in groups of GROUP channels, before a ReLU and the convolution.
    """
    O, C = weight.shape[:2]
    ready = wide() and O % CHANNELS == 0 and stride == 2
    if norm is None:
        return _conv(x, weight) if ready and not x.requires_grad else _plain(x, weight, stride=stride)
    if ready and C % CHANNELS == 0:
        return _normed_conv(x, norm.weight, norm.bias, weight, eps=norm.eps)
    return _normed_plain(x, norm.weight, norm.bias, weight, eps=norm.eps, stride=stride)


def _plain(x: Tensor, weight: Tensor, *, stride: int = 2) -> Tensor:
    with torch.autocast("cpu", enabled=False):  # what follows is fast in float32
        return F.conv2d(x.movedim(-1, 1), weight, stride=stride, padding=1).movedim(1, -1)


def _normed_plain(x: Tensor, scale: Tensor, bias: Tensor, weight: Tensor, *, eps: float, stride: int = 2) -> Tensor:
    normal = F.group_norm(x.movedim(-1, 1), len(scale) // GROUP, scale, bias, eps)
    return _plain(F.relu(normal).movedim(1, -1), weight, stride=stride)


def _forward(x: Tensor, weight: Tensor) -> Tensor:
    none = x.new_empty(0)
    return _normed_forward(x, none, none, weight, eps=0)


def _normed_forward(x: Tensor, scale: Tensor, bias: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    y = x.new_empty(len(x), (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2, len(weight))
    filters = weight.permute(2, 3, 1, 0).reshape(-1)
    run("conv", -(-len(x) // IMAGES), eps, x, scale, bias, filters, y)
    return y


def _backward(dy: Tensor, x: Tensor, weight: Tensor) -> Gradients:
    none = x.new_empty(0)
    return None, _normed_backward(dy, x, none, none, weight, eps=0)[-1]


def _normed_backward(dy: Tensor, x: Tensor, scale: Tensor, bias: Tensor, weight: Tensor, *, eps: float) -> Gradients:
    count = -(-max(1, len(x)) // (ITEMS * IMAGES)) * IMAGES
    items, (O, C) = -(-len(x) // count), weight.shape[:2]
    dx, d_scale, d_bias = torch.empty_like(x), x.new_zeros(items, len(scale)), x.new_zeros(items, len(scale))
    d_filters, filters = x.new_zeros(items, weight.numel()), weight.permute(2, 3, 0, 1).reshape(-1)
    run("conv_adjoint", items, count, eps, x, scale, bias, filters, dy, dx, d_scale, d_bias, d_filters)
    d_weight = d_filters.sum(0).view(3, 3, C, O).permute(3, 2, 0, 1)
    return dx, d_scale.sum(0), d_bias.sum(0), d_weight


_conv = Operation(_plain, _forward, _backward)
"""Of images that need no gradient."""

_normed_conv = Operation(_normed_plain, _normed_forward, _normed_backward)
