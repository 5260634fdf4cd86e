"""Root-mean-square normalisation (Zhang and Sennrich, 2019). Shapes: R rows, D width."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused.operation import Gradients, Operation, run

ROWS = 64
"""Rows of an item of work."""


def rms_norm(x: Tensor, weight: Tensor, eps: float | None = None) -> Tensor:
    """Rows x (..., D) divided by their root mean square, times weight (D,): as torch.nn.functional.rms_norm."""
    return _rms_norm(x, weight, eps=eps)


class RMSNorm(nn.RMSNorm):
    """torch.nn.RMSNorm over the last dimension, by `rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def _plain(x: Tensor, weight: Tensor, *, eps: float | None) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)  # of two dtypes it would be slow


def _forward(x: Tensor, weight: Tensor, *, eps: float | None) -> Tensor:
    y = torch.empty_like(x)
    rows = x.view(-1, len(weight))
    run("rms_norm", -(-len(rows) // ROWS), ROWS, _eps(x, eps), rows, weight, y.view_as(rows))
    return y


def _backward(dy: Tensor, x: Tensor, weight: Tensor, *, eps: float | None) -> Gradients:
    dx, rows = torch.empty_like(x), x.view(-1, len(weight))
    items = -(-len(rows) // ROWS)
    d_weight = x.new_zeros(items, len(weight))
    run("rms_norm_adjoint", items, ROWS, _eps(x, eps), rows, weight, dy.view_as(rows), dx.view_as(rows), d_weight)
    return dx, d_weight.sum(0)


def _eps(x: Tensor, eps: float | None) -> float:
    return torch.finfo(x.dtype).eps if eps is None else eps


_rms_norm = Operation(_plain, _forward, _backward)
