"""Each fast path on the CPU computes what its definition in plain torch does, with its gradients."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mambacl.learners.fused import operation
from mambacl.learners.fused.conv import CHANNELS, GROUP, IMAGES, _conv, _normed_conv, conv
from mambacl.learners.fused.gate import _gate
from mambacl.learners.fused.group_norm import _group_norm
from mambacl.learners.fused.norm import RMSNorm, _rms_norm
from mambacl.learners.fused.operation import Operation
from mambacl.learners.fused.short_conv import TILE, _short_conv, short_conv
from mambacl.learners.fused.softplus import _softplus

pytest.importorskip("numba")
kernels = importlib.import_module("mambacl.learners.fused.kernels.conv")


@pytest.fixture(autouse=True, scope="module")
def tiny_inputs_are_fast():
    """Without the limit under which plain torch runs; it has empty tensors all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operation, "TINY", 1)
        yield


@dataclasses.dataclass
class Case:
    """An operation, shapes of its inputs from batch, length and width, its settings, and how many inputs have no gradient."""

    operation: Operation
    shapes: Callable[[int, int, int], Sequence[tuple[int, ...]]]
    settings: dict[str, object]
    constants: int = 0

    def inputs(self, b: int, length: int, width: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        generator = torch.Generator().manual_seed(b + 10 * length + 100 * width)
        return [
            (2 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_(place >= self.constants)
            for place, shape in enumerate(self.shapes(b, length, width))
        ]


def rows(b, length, width):
    return (b, length, width), (width,)


def filters(count):
    def shapes(b, length, width):
        width += -width % CHANNELS
        return (b, length, width), (b, count - 1, width), (count, width), (width,)

    return shapes


def images(b, length, width):
    return (b, 2 * width, length, 3), (2 * width,), (2 * width,)


def images_and_filters(channels, after):
    """Not wide ones: of gradients that are sums over many pixels float32 keeps fewer places, in any order."""
    return lambda b, length, width: ((b, length + 1, min(width, 17), channels), (after, channels, 3, 3))


def normed_images_and_filters(channels, after):
    def shapes(b, length, width):
        images, filters = images_and_filters(channels, after)(b, length, width)
        return images, (channels,), (channels,), filters

    return shapes


CASES = {
    "gate": Case(_gate, lambda *shape: (shape, shape), {}),
    "softplus": Case(_softplus, rows, {}),
    "rms_norm": Case(_rms_norm, rows, {"eps": 1e-3}),
    "rms_norm, eps of the dtype": Case(_rms_norm, rows, {"eps": None}),
    "short_conv": Case(_short_conv, filters(4), {"silu": False}),
    "short_conv, silu": Case(_short_conv, filters(4), {"silu": True}),
    "short_conv of one": Case(_short_conv, filters(1), {"silu": True}),
    "conv of grey": Case(_conv, images_and_filters(1, 16), {}, constants=1),
    "conv of RGB": Case(_conv, images_and_filters(3, 48), {}, constants=1),
    "conv, normed": Case(_normed_conv, normed_images_and_filters(16, 32), {"eps": 1e-3}),
    "conv, normed, odd": Case(_normed_conv, normed_images_and_filters(48, 16), {"eps": 1e-3}),
    "group_norm": Case(_group_norm, images, {"groups": 2, "eps": 1e-3}),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def outputs_and_gradients(run: Callable, inputs: Sequence[Tensor], **settings: object) -> list[Tensor]:
    """Outputs, then the inputs' gradients for one random gradient of the outputs."""
    found = run(*inputs, **settings)
    found = found if isinstance(found, tuple) else (found,)
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in found]
    return [*found, *torch.autograd.grad(found, [x for x in inputs if x.requires_grad], given)]


@cases
@settings(deadline=None, max_examples=25)
@given(b=st.integers(1, 3), length=st.sampled_from([*range(10), 16, 35]), width=st.sampled_from([1, 3, 17, 257]))
def test_fast_is_plain(case, b, length, width):
    """Guards values and gradients on all shapes: empty streams, streams shorter than the filter and such as are taken in parts,
    odd widths, two tiles."""
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
        inputs = case.inputs(b, length, width, dtype)
        fast = outputs_and_gradients(case.operation, inputs, **case.settings)
        plain = outputs_and_gradients(case.operation.plain, inputs, **case.settings)
        for found, expected in zip(fast, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@cases
def test_gradcheck(case):
    """Guards the adjoints against numerical gradients, not only against torch's, and gradients of gradients."""
    inputs = case.inputs(2, 4, 3)

    def run(*inputs):
        return case.operation(*inputs, **case.settings)

    many = sum(x.numel() for x in inputs) > 1000  # then along one direction
    assert torch.autograd.gradcheck(run, inputs, fast_mode=many)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=many)


@cases
def test_inputs_of_any_layout(case):
    """Guards slices and transposed tensors, whose numbers do not lie side by side."""
    inputs = case.inputs(2, 5, 6)
    scattered = [torch.stack([x, x], dim=-1).detach()[..., 0].requires_grad_(x.requires_grad) for x in inputs]
    assert not scattered[0].is_contiguous()
    fast = outputs_and_gradients(case.operation, scattered, **case.settings)
    plain = outputs_and_gradients(case.operation.plain, inputs, **case.settings)
    for found, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(found, expected)


@cases
def test_same_bits_for_any_number_of_threads(case, monkeypatch, threads):
    monkeypatch.setattr(operation, "SMALL", 0)
    size = (19, 60, 60) if "images" in case.shapes.__qualname__ else (3, 300, 300)
    inputs, results = case.inputs(*size, torch.float32), []
    for number in (1, 2):
        threads(number)
        results.append(outputs_and_gradients(case.operation, inputs, **case.settings))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@cases
def test_numbers_that_are_none_stay_so(case):
    """Guards against a run that has diverged and does not show it."""
    inputs = [x.detach() for x in case.inputs(1, 4, 3, torch.float32)]
    inputs[0].view(-1)[5] = torch.nan
    fast = case.operation(*inputs, **case.settings)
    plain = case.operation.plain(*inputs, **case.settings)
    torch.testing.assert_close(fast, plain, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("x", [-1e4, -100.0, -50.0, -1e-3, 0.0, 19.9, 20.1, 1e4, torch.inf])
def test_ends_of_the_range(x):
    """Guards the exponentials of float32 where they overflow and vanish."""
    ends = torch.tensor([[x]])
    wide, none, ones = ends.expand(1, 1, CHANNELS), torch.zeros(1, 0, CHANNELS), torch.ones(1, CHANNELS)
    for case, inputs, how in (
        (_softplus, (ends, torch.zeros(1)), {}),
        (_gate, (ends, ends), {}),
        (_short_conv, (wide, none, ones, torch.zeros(CHANNELS)), {"silu": True}),
    ):
        fast, plain = case(*inputs, **how), case.plain(*inputs, **how)
        torch.testing.assert_close(fast, plain, atol=1e-30, rtol=1e-5, equal_nan=True)


def test_convolutions_are_counted():
    """Guards costs and benchmarks, which count operations."""
    x, weight, norm = torch.randn(20, 8, 8, 16), torch.randn(32, 16, 3, 3), nn.GroupNorm(2, 16)
    with FlopCounterMode(display=False) as counter:
        conv(x, weight, norm)
    assert counter.get_total_flops() == 2 * 20 * 4 * 4 * 32 * 9 * 16


def test_streams_of_channels_that_fill_no_vector():
    """Guards widths that the kernel of streams does not know."""
    x, state, weight, bias = torch.randn(2, 50, 24), torch.randn(2, 3, 24), torch.randn(4, 24), torch.randn(24)
    y, after = short_conv(x, state, weight, bias, silu=True)
    expected, left = _short_conv.plain(x, state, weight, bias, silu=True)
    assert torch.equal(y, expected)
    assert torch.equal(after, left)


def test_sizes_are_those_of_the_kernels():
    """Guards what stands twice, since kernels import nothing of ours."""
    assert (GROUP, IMAGES, CHANNELS) == (kernels.GROUP, kernels.ROWS, kernels.LANES)
    assert TILE % CHANNELS == 0


def test_what_only_plain_torch_takes(monkeypatch):
    """Guards what cannot run compiled loops: other dtypes and devices, torch.func and torch.compile, no numba."""
    norm = RMSNorm(8)
    x = torch.randn(2, 3, 8)
    expected = nn.functional.rms_norm(x, (8,), norm.weight)
    torch.testing.assert_close(torch.func.vmap(norm)(x), expected)
    compiled = torch.compile(norm, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    assert norm.to("meta")(x.to("meta")).shape == x.shape
    norm = RMSNorm(8).bfloat16()
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    monkeypatch.setattr(operation, "kernels", lambda: None)
    torch.testing.assert_close(RMSNorm(8)(x), expected)


def test_the_process_that_compiles_has_the_bits_of_those_that_load_the_cache(assert_same_from_cache):
    """Guards bit-equal resumption: the first process on a machine compiles, the one after a kill loads."""
    code = """
import hashlib, torch
from torch import nn
from mambacl.learners.fused import conv, gate, group_norm, rms_norm, short_conv, softplus
torch.manual_seed(0)
x, weight, filters = torch.randn(8, 40, 64).requires_grad_(), torch.randn(64), torch.randn(4, 64)
y, _ = short_conv(x, torch.zeros(8, 3, 64), filters, weight, True)
y = rms_norm(gate(y, softplus(x, weight)), weight)
y = group_norm(y, nn.GroupNorm(5, 40)).view(20, 8, 8, 16)
y = conv(y, torch.randn(32, 16, 3, 3), nn.GroupNorm(2, 16)) + conv(torch.randn(20, 8, 8, 1), torch.randn(32, 1, 3, 3))
y.square().sum().backward()
print(hashlib.sha256(b"".join(number.detach().numpy().tobytes() for number in (y, x.grad))).hexdigest())
"""
    assert_same_from_cache(code)
