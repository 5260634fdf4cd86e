"""Inputs of a scan and what comes out of it, for all tests of the folder."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def _inputs(B: int, L: int, E: int, N: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """u, delta, A, B, C, D and h as a trained Mamba would give them, all requiring gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "u": normal(B, L, E),
        "delta": torch.nn.functional.softplus(normal(B, L, E) - 2),
        "A": -torch.exp(normal(E, N)),
        "B": normal(B, L, N),
        "C": normal(B, L, N),
        "D": normal(E),
        "h": normal(B, E, N),
    }
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in tensors.items()}


def _results(
    function: Callable, tensors: dict[str, Tensor | None], weights: str = "yh", seed: int = 1
) -> dict[str, Tensor]:
    """Outputs of a scan or read, and the gradients of a weighted sum of its outputs (y) and its final state (h)."""
    outputs = function(*tensors.values())
    outputs = dict(zip("yh", outputs if isinstance(outputs, tuple) else (outputs,), strict=False))
    outputs = {name: output for name, output in outputs.items() if output is not None}
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros((), dtype=next(iter(outputs.values())).dtype)
    for name, output in outputs.items():
        weight = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
        if name in weights:
            loss = loss + (weight * output).sum()
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    gradients = torch.autograd.grad(loss, list(given.values()), allow_unused=True, materialize_grads=True)
    named = {f"d{name}": gradient for name, gradient in zip(given, gradients, strict=True)}
    return {name: x.detach() for name, x in (outputs | named).items()}


def _assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal up to a fraction of the largest entry of each tensor."""
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].shape == tensor.shape, name
        if tensor.numel():
            error = (actual[name].to(tensor.dtype) - tensor).abs().max() / tensor.abs().max().clamp_min(1e-30)
            assert error <= tolerance, f"{name} is off by {error:.1e}"


@pytest.fixture(scope="session")
def inputs() -> Callable[..., dict[str, Tensor]]:
    return _inputs


@pytest.fixture(scope="session")
def results() -> Callable[..., dict[str, Tensor]]:
    return _results


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    return _assert_close
