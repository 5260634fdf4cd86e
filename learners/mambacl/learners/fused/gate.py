"""The gate of a block: outputs times the SiLU of what stands beside them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.fused.operation import Gradients, Operation, run

BLOCK = 1 << 13
"""Numbers of an item of work."""


def gate(y: Tensor, z: Tensor) -> Tensor:
    """y * silu(z), both of one shape."""
    return _gate(y, z)


def _plain(y: Tensor, z: Tensor) -> Tensor:
    return y * F.silu(z)


def _forward(y: Tensor, z: Tensor) -> Tensor:
    out = torch.empty_like(y)
    run("gate", -(-y.numel() // BLOCK), BLOCK, y.view(-1), z.view(-1), out.view(-1))
    return out


def _backward(d_out: Tensor, y: Tensor, z: Tensor) -> Gradients:
    dy, dz = torch.empty_like(y), torch.empty_like(z)
    run("gate_adjoint", -(-y.numel() // BLOCK), BLOCK, d_out.view(-1), y.view(-1), z.view(-1), dy.view(-1), dz.view(-1))
    return dy, dz


_gate = Operation(_plain, _forward, _backward)
