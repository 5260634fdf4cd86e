"""Mamba's step sizes: the softplus of a product of low rank and its bias. Shapes: R rows, K rank, E channels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.fused.operation import Gradients, Operation, run

ROWS = 64
"""Rows of an item of work."""


def step_sizes(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """softplus(x weight^T + bias) of x (..., K), weight (E, K) and bias (E,). The product is never in memory: of a rank
    that is far smaller than E it takes less time to compute than to store."""
    return _step_sizes(x, weight, bias)


def _plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.softplus(F.linear(x, weight, bias))


def _forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y, rows = x.new_empty(*x.shape[:-1], len(bias)), x.view(-1, x.shape[-1])
    run("step_sizes", -(-len(rows) // ROWS), ROWS, rows, weight.t().contiguous(), bias, y.view(-1, len(bias)))
    return y


def _backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Gradients:
    dx, rows, weight_KE = torch.empty_like(x), x.view(-1, x.shape[-1]), weight.t().contiguous()
    items = -(-len(rows) // ROWS)
    d_weight_IKE, d_bias_IE = x.new_zeros(items, *weight_KE.shape), x.new_zeros(items, len(bias))
    inputs, outputs = (dy.view(-1, len(bias)), rows, weight_KE, bias), (dx.view_as(rows), d_weight_IKE, d_bias_IE)
    run("step_sizes_adjoint", items, ROWS, *inputs, *outputs)
    return dx, d_weight_IKE.sum(0).t(), d_bias_IE.sum(0)


_step_sizes = Operation(_plain, _forward, _backward)
