"""An operation with a fast path on the CPU beside its definition in plain torch."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from mambacl.learners.scan import team

Gradients = tuple[Tensor | None, ...]

TINY = 1 << 14  # numbers under which plain torch is faster: a call costs some 10 microseconds more
SMALL = 1 << 18  # numbers under which a second thread costs more than it brings


@dataclasses.dataclass(frozen=True)
class Operation:
    """Called with tensors and, by keyword, with settings that are none; gives a tensor or a tuple of them."""

    plain: Callable[..., Any]
    """The definition: what runs where the fast path does not, and what gradients of gradients are taken of."""
    forward: Callable[..., Any]
    """The same, fast; takes contiguous tensors."""
    backward: Callable[..., Gradients]
    """From the outputs' gradients (a tensor, or a tuple of them) and the inputs to the inputs' gradients."""

    def __call__(self, *inputs: Tensor, **settings: Any) -> Any:
        if inputs[0].numel() < TINY or plain_torch(inputs) or kernels() is None:
            return self.plain(*inputs, **settings)
        return _Fast.apply(self, settings, *(x.contiguous() for x in inputs))


class _Fast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, settings: dict[str, Any], *inputs: Tensor):
        ctx.operation, ctx.settings = operation, settings
        ctx.save_for_backward(*inputs)
        return operation.forward(*inputs, **settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        operation, settings, inputs = ctx.operation, ctx.settings, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, *_again(operation, settings, inputs, gradients, ctx.needs_input_grad[2:])
        dy = tuple(gradient.contiguous() for gradient in gradients)
        return None, None, *operation.backward(dy[0] if len(dy) == 1 else dy, *inputs, **settings)


def _again(
    operation: Operation,
    settings: dict[str, Any],
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The inputs' gradients by plain torch, which has gradients of them in turn."""
    own = [x.view_as(x) for x in inputs]  # an input may be computed from another: each is to be a leaf here
    y = operation.plain(*own, **settings)
    wanted = [x for x, need in zip(own, needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, gradients, create_graph=True))
    return [next(found) if need else None for need in needed]


def plain_torch(inputs: Sequence[Tensor]) -> bool:
    """Whether only plain torch can take these: they are on another device or in another dtype, or something looks on
    that must see torch's operations, such as what counts them."""
    dtype = inputs[0].dtype
    return (
        torch.compiler.is_compiling()
        or dtype not in (torch.float32, torch.float64)
        or any(type(x) not in (Tensor, Parameter) or not x.is_cpu or x.dtype != dtype for x in inputs)
        or torch._C._are_functorch_transforms_active()
        or any("FlopCounterMode" in type(mode).__name__ for mode in _get_current_dispatch_mode_stack())
    )


@cache
def kernels() -> ModuleType | None:
    """The compiled loops, imported when they are first needed; None without numba."""
    try:
        return importlib.import_module("mambacl.learners.fused.kernels")
    except ImportError:
        return None


def run(name: str, items: int, *arguments: Tensor | float) -> None:
    """Run a kernel over all its items, on as many threads as torch has.

    Which thread takes which item makes no difference to a result: no two items write to the same place.
    """
    kernel = getattr(kernels(), name)
    arrays = [x.detach().numpy() if isinstance(x, Tensor) else x for x in arguments]
    largest = max(x.numel() for x in arguments if isinstance(x, Tensor))
    team.share_out(lambda: lambda begin, end: kernel(begin, end, *arrays), items, largest > SMALL)
