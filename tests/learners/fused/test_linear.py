"""Products of matrices by oneDNN are those of torch."""

import importlib

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mambacl.learners.fused import Linear, linear
from mambacl.learners.fused.linear import wide

pytestmark = pytest.mark.skipif(
    not (wide() and torch.backends.mkldnn.is_available()), reason="no oneDNN with wide vectors here"
)
module = importlib.import_module("mambacl.learners.fused.linear")  # the package has a function of this name


@pytest.fixture(autouse=True)
def any_maker(monkeypatch):
    """Take oneDNN on Intel's processors, too."""
    monkeypatch.setattr(module, "INTEL", False)


SHAPES = [((), 1500, 1500), ((16, 40), 64, 300), ((1, 700), 300, 64), ((700,), 8, 512)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "K", "N"), SHAPES)
def test_values_and_gradients(rows, K, N, bias):
    """Guards the products of the backward pass, whose factors are transposed, on a slice that is not contiguous."""
    inputs = [torch.randn(*rows, 2 * K)[..., :K], torch.randn(N, K), *([torch.randn(N)] if bias else [])]
    for x in inputs:
        x.requires_grad_()
    dy = torch.randn(*rows, N)
    found = linear(*inputs)
    expected = F.linear(*inputs)
    assert "_Linear" in type(found.grad_fn).__name__
    gradients = zip(torch.autograd.grad(found, inputs, dy), torch.autograd.grad(expected, inputs, dy), strict=True)
    for ours, theirs in ((found, expected), *gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("bias", [False, True])
def test_factors_are_half_under_autocast(bias):
    """Guards `train.precision: bfloat16` on the CPU: the products of the backward pass are half as well, and all is float32."""
    inputs = [torch.randn(700, 300), torch.randn(64, 300), *([torch.randn(64)] if bias else [])]
    for x in inputs:
        x.requires_grad_()
    dy = torch.randn(700, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(*inputs)
    exact = linear(*inputs)
    gradients = zip(torch.autograd.grad(found, inputs, dy), torch.autograd.grad(exact, inputs, dy), strict=True)
    for half, whole in ((found, exact), *list(gradients)[:2]):
        assert half.dtype == torch.float32
        error = (half - whole).norm() / whole.norm()
        assert 1e-4 < error < 1e-2, "a half has 8 bits"


def test_gradients_of_gradients():
    """Guards learners of second order, whose encoder has linear maps."""
    x, weight = torch.randn(300, 100, requires_grad=True), torch.randn(100, 100, requires_grad=True)
    seconds = []
    for product in (linear, F.linear):
        dx, d_weight = torch.autograd.grad(product(x, weight).square().sum(), (x, weight), create_graph=True)
        seconds.append(torch.autograd.grad(dx.square().sum() + d_weight.square().sum(), (x, weight)))
    for ours, theirs in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_same_bits_for_any_number_of_threads(threads):
    x, weight = torch.randn(3200, 128, requires_grad=True), torch.randn(256, 128, requires_grad=True)
    results = []
    for number in (1, 2):
        threads(number)
        y = linear(x, weight)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, weight))))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_products_are_counted():
    """Guards costs and benchmarks, which count operations."""
    x, layer = torch.randn(300, 100), Linear(100, 200)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * 300 * 100 * 200


def test_compiled_graphs_hold_the_plain_product():
    """Guards torch.compile, which is to see one operation that it knows."""
    x, layer = torch.randn(300, 100), Linear(100, 200)
    torch.testing.assert_close(
        torch.compile(layer, backend="eager", fullgraph=True)(x), F.linear(x, *layer.parameters())
    )


def test_intels_processors_have_torchs_product(monkeypatch):
    """Guards their speed: MKL is ahead there, but in half precision."""
    monkeypatch.setattr(module, "INTEL", True)
    x, weight = torch.randn(300, 100), torch.randn(200, 100, requires_grad=True)
    assert "_Linear" not in type(linear(x, weight).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert "_Linear" in type(linear(x, weight).grad_fn).__name__
