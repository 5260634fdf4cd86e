"""Errors of a device's kernels, forward and backward, against the references in float64.

Legend: B episodes, H heads, L tokens, E inner width, N state size, K key size, V value size.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.scan import SELECTIVE, matrix_reference, reference
from mambacl.learners.scan.dispatch import Recurrence
from mambacl.learners.scan.matrix import MATRIX
from mambacl.learners.scan.writes import Writes
from mambacl.platform.benchmarks.measure import ROUNDS, Row, Scope

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest errors, as a share of the largest number, by the dtype of tokens."""

TENSOR_FLOAT_32 = 2e-2
"""The same for kernels whose products are in TF32, with ten bits behind the point."""

Make = Callable[[int], list[Tensor]]
"""Makes the inputs of a kernel from a seed."""

Call = Callable[[ModuleType, list[Tensor]], list[Tensor]]
"""Outputs of a kernel's module."""


def error_rows(at: torch.device, scope: Scope) -> Iterator[Row]:
    """Of the selective scan and of the recurrences of linear attention and of Mamba-2."""
    shape = (1, 5, 4, 3) if scope == "tiny" else (4, 203, 200, 16)
    for name, module in kernels(SELECTIVE, at).items():
        for dtype in TOLERANCES if hasattr(module, "HALF") else (torch.float32,):
            what = f"selective scan and read, {name}, tokens in {str(dtype).removeprefix('torch.')}"
            make = functools.partial(selective_inputs, shape, dtype, at)
            yield from compared(what, module, reference, make, selective_outputs, scope, TOLERANCES[dtype])
    shape = (1, 2, 5, 4, 3) if scope == "tiny" else (4, 8, 203, 64, 64)
    for name, module in kernels(MATRIX, at).items():
        for kind, decays in (("linear attention", False), ("Mamba-2", True)):
            make = functools.partial(matrix_inputs, shape, decays, at)
            tolerance = TENSOR_FLOAT_32 if name == "fla" else TOLERANCES[torch.float32]
            what = f"recurrence of {kind}, {name}"
            yield from compared(what, module, matrix_reference, make, matrix_outputs, scope, tolerance)


def kernels(recurrence: Recurrence, at: torch.device) -> dict[str, ModuleType | str]:
    """All kernels that a device has but the reference, or why one cannot run. The Triton kernel runs on a CPU, too: in its
    interpreter, for which the dispatch has no use."""
    found: dict[str, ModuleType | str] = {}
    for name, kernel in recurrence.kernels[:-1]:
        interpreted = name == "triton" and at.type == "cpu"
        if not interpreted and kernel.device not in (None, at.type):
            continue
        try:
            module = importlib.import_module(f"mambacl.learners.scan.{kernel.module}")
            found[name] = (None if interpreted else recurrence.obstacle(name, at.type)) or module
        except ImportError as error:
            found[name] = f"{error}; {kernel.get}"
    return found


def compared(
    what: str, module: ModuleType | str, exact: ModuleType, make: Make, call: Call, scope: Scope, tolerance: float
) -> Iterator[Row]:
    """Largest errors of outputs and of gradients, for several inputs."""
    if isinstance(module, str):
        yield Row(what, note=module)
        return
    found = []
    for seed in range(ROUNDS[scope]):
        inputs = make(seed)
        doubles = [x.detach().double().requires_grad_() for x in inputs]
        try:
            here = with_gradients(module, inputs, call)
        except Exception as refusal:  # a foreign kernel may raise anything
            yield Row(what, note=f"{type(refusal).__name__}: {refusal}".splitlines()[0])
            return
        sides = here, with_gradients(exact, doubles, call)
        found.append([max(map(error, *part)) for part in zip(*sides, strict=True)])
    for name, errors in zip(("forward", "backward"), np.array(found).T, strict=True):
        yield Row.of(f"{what}: {name} error", "of the largest", errors, torch.get_num_threads(), below=tolerance)


def with_gradients(module: ModuleType, inputs: list[Tensor], call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and what their mean squares give for gradients of the inputs."""
    outputs = call(module, inputs)
    loss = torch.stack([x.double().square().mean() for x in outputs]).sum()
    return outputs, list(torch.autograd.grad(loss, inputs))


@torch.no_grad()
def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max() / exact.abs().max())


def selective_inputs(shape: Sequence[int], dtype: torch.dtype, at: torch.device, seed: int) -> list[Tensor]:
    """u, delta, A, B, C, D and h as a Mamba gives them, u, B and C in a dtype."""
    B, L, E, N = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = ((B, L, E), (B, L, E), (E, N), (B, L, N), (B, L, N), (E,), (B, E, N))
    u, delta, A, b, c, D, h = (torch.randn(*size, generator=generator) for size in sizes)
    tensors = [u.to(dtype), F.softplus(delta - 2), -torch.exp(A), b.to(dtype), c.to(dtype), D, h]
    return [x.to(at).requires_grad_() for x in tensors]


def selective_outputs(module: ModuleType, inputs: list[Tensor]) -> list[Tensor]:
    """Of a scan, and of queries to the state behind it, so that gradients flow through that."""
    u, delta, A, B, C, D, h = inputs
    y, last = module.selective_scan(u, delta, A, B, C, D, h)
    return [y, last, module.selective_read(u, delta, A, B, C, D, last)]


def matrix_inputs(shape: Sequence[int], decays: bool, at: torch.device, seed: int) -> list[Tensor]:
    """Query, key, value and state, and with decays log decay and strength."""
    B, H, L, K, V = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = ((B, H, L, K), (B, H, L, K), (B, H, L, V), (B, H, K, V), (B, H, L, 1), (B, H, L))
    query, key, value, state, decay, strength = (torch.randn(*size, generator=generator) for size in sizes)
    tensors = [query, key, value, state, *((-F.softplus(decay - 2), strength.sigmoid()) if decays else ())]
    return [x.to(at).requires_grad_() for x in tensors]


def matrix_outputs(module: ModuleType, inputs: list[Tensor]) -> list[Tensor]:
    query, key, value, state, *rest = inputs
    decay, strength = rest or (None, None)
    return list(module.scan(Writes(query, key, value, decay, strength), state))
