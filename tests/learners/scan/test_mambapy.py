"""The scan agrees with an implementation that somebody else wrote: the parallel scan of mambapy.

Guards against an error that our reference and our kernels might share.
"""

import pytest
import torch

from mambacl.learners.scan import cpu

pscan = pytest.importorskip("mambapy.pscan").pscan

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}


def theirs(u, delta, A, B, C, D):
    decay_BLEN = torch.exp(delta[..., None] * A)
    h_BLEN = pscan(decay_BLEN, (delta * u)[..., None] * B[:, :, None])
    return (h_BLEN @ C[..., None])[..., 0] + D * u, h_BLEN[:, -1]


def ours(*tensors):
    return cpu.selective_scan(*tensors, None)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("L", [1, 13, 32, 33, 50, 127])
def test_scan_equals_mambapy_over_lengths(inputs, results, assert_close, L, dtype):
    tensors = inputs(2, L, 6, 5, dtype)
    del tensors["h"]
    assert_close(results(ours, tensors), results(theirs, tensors), TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_scan_equals_mambapy_over_all_state_sizes(inputs, results, assert_close, dtype):
    for N in range(1, 257):
        tensors = inputs(1, 9, 2, N, dtype)
        del tensors["h"]
        assert_close(results(ours, tensors), results(theirs, tensors), TOLERANCES[dtype])
