"""Group normalisation (Wu and He, 2018). Shapes: B examples, C channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused.operation import Gradients, Operation, run

NUMBERS = 1 << 16
"""Numbers of an item of work, about."""


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """x (B, C, ...) as `norm` leaves it."""
    return _group_norm(x, norm.weight, norm.bias, groups=norm.num_groups, eps=norm.eps)


def _plain(x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


def _forward(x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float) -> Tensor:
    y, (items, rows, parameters) = torch.empty_like(x), _layout(x, weight, bias, groups)
    run("group_norm", items, rows, eps, _rows(x, groups), *parameters, _rows(y, groups))
    return y


def _backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float) -> Gradients:
    dx, (items, rows, parameters) = torch.empty_like(x), _layout(x, weight, bias, groups)
    sums = [x.new_zeros(items, *each.shape) for each in parameters]
    inputs, outputs = (_rows(x, groups), parameters[0], _rows(dy, groups)), (_rows(dx, groups), *sums)
    run("group_norm_adjoint", items, rows, eps, *inputs, *outputs)
    d_weight, d_bias = (each.view(items, len(weight), -1).sum((0, 2)) for each in sums)
    return dx, d_weight, d_bias


def _layout(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> tuple[int, int, list[Tensor]]:
    """Items of work, rows of each, and the parameters of every pixel as (groups, S): a group of channels is one row of S
    numbers, so that loops are long for small images, too."""
    pixels = x[0, 0].numel()
    rows = max(1, NUMBERS * groups // (pixels * len(weight)))
    parameters = [each.repeat_interleave(pixels).view(groups, -1) for each in (weight, bias)]
    return -(-len(x) * groups // rows), rows, parameters


def _rows(x: Tensor, groups: int) -> Tensor:
    return x.view(len(x) * groups, -1)


_group_norm = Operation(_plain, _forward, _backward)
