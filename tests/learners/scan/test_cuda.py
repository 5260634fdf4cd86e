"""What completes mamba-ssm's scan on a GPU is plain torch, so it is tested on the CPU; the scan itself is replaced by the reference."""

import sys
from types import ModuleType

import pytest
import torch

from mambacl.learners.scan import cuda, reference


@pytest.fixture(params=[1 << 26, 200, 1])
def piece(request, monkeypatch):
    """Streams in one piece, in a few, and token by token."""
    monkeypatch.setattr(cuda, "PIECE", request.param)


@pytest.mark.usefixtures("piece")
def test_final_state_equals_reference(inputs, results, assert_close):
    """Guards the reduction that gives the final state its gradient."""

    def ours(u, delta, A, B, h):
        return cuda.final_state(u, delta, A, B, h)

    def theirs(u, delta, A, B, h):
        return reference.selective_scan(u, delta, A, B, None, None, h)[1]

    tensors = inputs(2, 9, 3, 4)
    del tensors["C"], tensors["D"]
    assert_close(results(ours, tensors), results(theirs, tensors), 1e-9)


def test_final_state_of_a_long_stream_in_float32(inputs, results, assert_close):
    """Guards the sums from the end: differences of sums from the beginning lose recent tokens of fast channels."""
    tensors = inputs(1, 3000, 2, 3)
    tensors["A"] = torch.tensor([[-0.01, -1.0, -256.0]] * 2, dtype=torch.float64)
    arguments = [tensors[name] for name in ("u", "delta", "A", "B")]
    expected = reference.selective_scan(*arguments, None, None, None)[1]
    actual = cuda.final_state(*(x.float() for x in arguments), None)
    for n in range(3):
        assert_close({"h": actual[..., n]}, {"h": expected[..., n]}, 1e-4)


@pytest.mark.usefixtures("piece")
def test_read_equals_reference(inputs, results, assert_close):
    """Guards the pieces of queries."""
    tensors = inputs(2, 9, 3, 4)
    assert_close(results(cuda.selective_read, tensors), results(reference.selective_read, tensors), 1e-9)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("absent", [(), ("h",), ("C", "D"), ("D", "h")])
def test_scan_around_mamba_ssm(inputs, results, assert_close, monkeypatch, absent):
    """Guards how the compiled scan, which starts at zero and ends without gradient, is fed and completed."""

    def selective_scan_fn(u_BEL, delta_BEL, A_EN, B_BNL, C_BNL, D=None):
        back = [x.transpose(1, 2) for x in (u_BEL, delta_BEL, B_BNL, C_BNL)]
        return reference.selective_scan(*back[:2], A_EN, *back[2:], D, None)[0].transpose(1, 2)

    fake = ModuleType("mamba_ssm.ops.selective_scan_interface")
    fake.selective_scan_fn = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops", fake.__name__):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(cuda, "_check_kernel", lambda *_: None)
    tensors = inputs(2, 9, 3, 4) | dict.fromkeys(absent)
    assert_close(results(cuda.selective_scan, tensors), results(reference.selective_scan, tensors), 1e-9)


def test_other_devices_and_dtypes_are_refused(inputs):
    """Guards the one-line error instead of a crash inside the extension."""
    with pytest.raises(ValueError, match="float32 on a GPU"):
        cuda.selective_scan(*inputs(1, 2, 3, 4).values())
