"""Linear maps whose products run on the faster library: MKL, which torch takes in float32, or oneDNN.

MKL has less than half of oneDNN's rate on processors that are not Intel's. On those it is ahead, above all in gradients of weights,
for which oneDNN wants a factor transposed in memory; but in half precision it has nothing.

Shapes: R rows, K inputs, N outputs.
"""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused.operation import Operation, plain_torch, run

SMALL = 1 << 21
"""R x K x N under which a call costs more than the product."""

ROWS = 256
"""Rows of an item of work, where a matrix is transposed."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K) times weight (N, K) transposed, plus bias (N,): as torch.nn.functional.linear.

    Under autocast, large products of float32 are of factors in half precision, and are float32: what follows is fast there.
    """
    inputs = [x, weight] if bias is None else [x, weight, bias]
    if x.numel() * len(weight) < SMALL or x.dtype != torch.float32 or plain_torch(inputs) or not fast():
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """torch.nn.Linear by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def fast() -> bool:
    """Whether oneDNN is there and has wider vectors than MKL may have, or half precision where that is asked for."""
    ahead = torch.is_autocast_enabled("cpu") or not INTEL
    return ahead and torch.backends.mkldnn.is_available() and wide()


def wide() -> bool:
    """Whether the processor has the wide vectors that kernels here are written for."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def _intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "GenuineIntel" in platform.processor()


INTEL = _intel()
"""Whether the processor is one that MKL gives its best on."""


class _Linear(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None):
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor):
        (dy,), (x, weight) = gradients, ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        # The gradient of a product is one or two more: gradients of gradients come with `linear` itself.
        rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, len(weight))
        dx = linear(dy, weight.t()) if need_x else None
        d_weight = None
        if need_weight:
            # oneDNN takes its first factor contiguous, the second one as it is: the smaller one is first.
            smaller = x.shape[-1] < len(weight)
            d_weight = linear(_transposed(rows), d_rows.t()).t() if smaller else linear(_transposed(d_rows), rows.t())
        return dx, d_weight, d_rows.sum(0) if need_bias else None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    half = torch.get_autocast_dtype("cpu")
    factors = x.to(half), weight.to(half), None if bias is None else bias.to(half)
    return torch.ops.mkldnn._linear_pointwise(*factors, "none", [], "").to(x.dtype)


def _transpose(x: Tensor) -> Tensor:
    out = x.new_empty(x.shape[::-1])
    run("transpose", -(-len(x) // ROWS), ROWS, x.shape[1], x.view(-1), out.view(-1))
    return out


_transposed = Operation(lambda x: x.t().contiguous(), _transpose, lambda dy, x: (_transpose(dy),))
"""A matrix, transposed in memory, too. torch's own copy is one thread's, and slower."""
