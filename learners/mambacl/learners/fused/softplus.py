"""Step sizes: the softplus of a product and its bias. Shapes: R rows, E channels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.fused.operation import Gradients, Operation, run

ROWS = 32
"""Rows of an item of work."""


def softplus(x: Tensor, bias: Tensor) -> Tensor:
    """log(1 + exp(x + bias)) of x (..., E) and bias (E,), and the sum itself where it is over 20."""
    return _softplus(x, bias)


def _plain(x: Tensor, bias: Tensor) -> Tensor:
    return F.softplus(x + bias)


def _forward(x: Tensor, bias: Tensor) -> Tensor:
    y, rows = torch.empty_like(x), x.view(-1, len(bias))
    run("softplus", -(-len(rows) // ROWS), ROWS, rows, bias, y.view_as(rows))
    return y


def _backward(dy: Tensor, x: Tensor, bias: Tensor) -> Gradients:
    dx, rows = torch.empty_like(x), x.view(-1, len(bias))
    items = -(-len(rows) // ROWS)
    d_bias = x.new_zeros(items, len(bias))
    run("softplus_adjoint", items, ROWS, dy.view_as(rows), rows, bias, dx.view_as(rows), d_bias)
    return dx, d_bias.sum(0)


_softplus = Operation(_plain, _forward, _backward)
