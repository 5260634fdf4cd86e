"""The CPU kernels do what the formulas of the reference say, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl.learners.scan import cpu, kernels, reference

SIZES = [1, 2, 3, 7, 16, 33, 64, 128, 256]


def as_double(tensors):
    return {k: None if x is None else x.detach().double().requires_grad_() for k, x in tensors.items()}


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_scan_equals_reference_for_every_state_size(inputs, results, assert_close, N, dtype, tolerance):
    """Guards blocks of the state that are not full, and float32's exponential."""
    tensors = inputs(2, 19, 5, N, dtype)
    expected = results(reference.selective_scan, as_double(tensors))
    assert_close(results(cpu.selective_scan, tensors), expected, tolerance)


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_read_equals_reference_for_every_state_size(inputs, results, assert_close, N, dtype, tolerance):
    """The same for queries."""
    tensors = inputs(2, 19, 5, N, dtype)
    expected = results(reference.selective_read, as_double(tensors))
    assert_close(results(cpu.selective_read, tensors), expected, tolerance)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    B=st.integers(1, 3),
    L=st.sampled_from([1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 49]),
    E=st.sampled_from([1, 2, 63, 127, 128, 129, 200, 257]),
    N=st.integers(1, 9),
    absent=st.sets(st.sampled_from("CDh")),
    weights=st.sampled_from(["yh", "y", "h"]),
    read=st.booleans(),
)
def test_any_shape_with_or_without_optional_tensors(inputs, results, assert_close, B, L, E, N, absent, weights, read):
    """Guards the borders of chunks, tiles, blocks and groups, absent arguments, and losses that use one output only."""
    if read:
        absent, weights = absent & {"D"}, "y"
    elif "C" in absent:
        weights = "h"
    tensors = inputs(B, L, E, N) | dict.fromkeys(absent)
    name = "selective_read" if read else "selective_scan"
    actual, expected = (results(getattr(module, name), tensors, weights) for module in (cpu, reference))
    assert_close(actual, expected, 1e-9)


def test_groups_of_tiles_add_up(inputs, results, assert_close, monkeypatch):
    """Guards partial sums over groups of several tiles, which only wide layers in large batches have."""
    monkeypatch.setattr(cpu, "PARTS", 4)
    tensors = inputs(2, 5, 5 * kernels.TILE * kernels.REGISTER // 8 + 1, 3)
    for name in ("selective_scan", "selective_read"):
        actual, expected = (results(getattr(module, name), tensors) for module in (cpu, reference))
        assert_close(actual, expected, 1e-9)


@pytest.mark.parametrize("cut", [1, 16, 20])
def test_a_stream_in_two_parts_equals_the_whole(inputs, results, assert_close, cut):
    """Guards the initial and the final state, and the gradient that flows from one part into the other."""

    def in_parts(u, delta, A, B, C, D, h):
        y_first, h = cpu.selective_scan(u[:, :cut], delta[:, :cut], A, B[:, :cut], C[:, :cut], D, h)
        y_rest, h = cpu.selective_scan(u[:, cut:], delta[:, cut:], A, B[:, cut:], C[:, cut:], D, h)
        return torch.cat([y_first, y_rest], 1), h

    tensors = inputs(2, 37, 6, 5)
    assert_close(results(in_parts, tensors), results(cpu.selective_scan, tensors), 1e-9)


def test_a_query_is_a_stream_of_one_token(inputs, results, assert_close):
    """Guards the meaning of a read: written before it is read, blind to all other queries."""

    def one_by_one(u, delta, A, B, C, D, h):
        M = u.shape[1]
        y = [
            cpu.selective_scan(*(x[:, m : m + 1] for x in (u, delta)), A, B[:, m : m + 1], C[:, m : m + 1], D, h)[0]
            for m in range(M)
        ]
        return torch.cat(y, 1)

    tensors = inputs(2, 5, 6, 5)
    assert_close(results(cpu.selective_read, tensors), results(one_by_one, tensors), 1e-9)


def test_strided_and_expanded_inputs(inputs, results, assert_close):
    """Guards against kernels that read a view as if it were contiguous."""

    def strided(u, delta, A, B, C, D, h):
        flip = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (u, delta)]
        BC = torch.cat([B, C], -1)
        y, h = cpu.selective_scan(*flip, A.t().contiguous().t(), *BC.chunk(2, -1), D[:1].expand(len(D)), h)
        return cpu.selective_read(*flip, A, *BC.chunk(2, -1), D, h) + y, h

    def plain(u, delta, A, B, C, D, h):
        y, h = reference.selective_scan(u, delta, A, B, C, D[:1].expand(len(D)), h)
        return reference.selective_read(u, delta, A, B, C, D, h) + y, h

    tensors = inputs(3, 7, 6, 5)
    assert_close(results(strided, tensors), results(plain, tensors), 1e-9)


@pytest.mark.parametrize(("B", "L", "E"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_do(inputs, results, assert_close, B, L, E):
    """Guards an empty batch, a stream without tokens, an episode without queries and a layer without channels."""
    tensors = inputs(B, L, E, 3)
    for name in ("selective_scan", "selective_read"):
        actual, expected = (results(getattr(module, name), tensors) for module in (cpu, reference))
        assert_close(actual, expected, 1e-9)


@pytest.mark.parametrize(("B", "L", "E"), [(2, 9, 64), (2, 9, 5), (1, 1, 5)])
def test_outputs_can_be_changed_in_place(inputs, B, L, E):
    """Guards against outputs that are views of something larger: autograd refuses to change those."""
    tensors = inputs(B, L, E, 3)
    y, _ = cpu.selective_scan(*tensors.values())
    z = cpu.selective_read(*tensors.values())
    (y.mul_(2).sum() + z.mul_(2).sum()).backward()
    assert tensors["u"].grad is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(inputs, mode):
    """Guards evaluation, which must not keep the states of backward either."""
    tensors = inputs(2, 9, 4, 3)
    with mode():
        y, h = cpu.selective_scan(*tensors.values())
        z = cpu.selective_read(*tensors.values())
    expected = reference.selective_scan(*tensors.values())
    assert torch.allclose(y, expected[0])
    assert torch.allclose(h, expected[1])
    assert torch.allclose(z, reference.selective_read(*tensors.values()))
    assert not any(x.requires_grad for x in (y, h, z))


def test_gradcheck():
    """Guards the adjoints independently of the reference's autograd: finite differences."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 3, 2), (1, 3, 2), (2, 3), (1, 3, 3), (1, 3, 3), (2,), (1, 2, 3)]
    tensors = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1 for shape in shapes]
    tensors[2] = -tensors[2]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(cpu.selective_scan, tensors)
    assert torch.autograd.gradcheck(cpu.selective_read, tensors)
    assert torch.autograd.gradcheck(
        lambda u, d, A, B, h: cpu.selective_scan(u, d, A, B, None, None, h)[1], tensors[:4] + tensors[6:]
    )


def test_second_derivatives_are_refused(inputs):
    """Guards against second derivatives that are silently zero: only the first are written."""
    tensors = inputs(1, 3, 2, 2)
    y, _ = cpu.selective_scan(*tensors.values())
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(y.sum(), tensors["u"], create_graph=True)
