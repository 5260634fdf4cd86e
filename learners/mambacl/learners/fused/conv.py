"""Convolution of the encoder: 3 x 3, stride 2, a pixel of zeros around. Shapes: B images, C and O channels, H x W pixels.

For the gradient of the images oneDNN takes two to five times as long as for the product of matrices that it is at heart. Here it
is that product, and one pass that adds up what it gives.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from mambacl.learners.fused.linear import linear
from mambacl.learners.fused.operation import Gradients, Operation, run

IMAGES = 256
"""Images whose patches are there at once."""


def conv(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, C, H, W) with weight (O, C, 3, 3) to (B, O, H / 2, W / 2), both rounded up."""
    return _conv(x, weight) if x.requires_grad else _plain(x, weight)  # the filters' gradient is torch's anyway


def _plain(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):  # what follows is fast in float32
        return F.conv2d(x, weight, stride=2, padding=1)


def _backward(dy: Tensor, x: Tensor, weight: Tensor) -> Gradients:
    dx, (O, C) = torch.empty_like(x), weight.shape[:2]
    factor = weight.permute(2, 3, 1, 0).reshape(9 * C, O)
    for d_out, d_in in zip(dy.split(IMAGES), dx.split(IMAGES), strict=True):
        patches = linear(d_out.permute(0, 2, 3, 1).contiguous(), factor).unflatten(-1, (3, 3 * C))
        run("add_patches", len(d_in), patches, d_in)
    return dx, conv2d_weight(x, list(weight.shape), dy, stride=2, padding=1)


_conv = Operation(_plain, lambda x, weight: _plain(x, weight).contiguous(), _backward)
