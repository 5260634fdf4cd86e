"""The scan agrees with an implementation that somebody else wrote: the parallel scan of mambapy."""

import pytest
import torch

from mambacl.learners.scan import cpu

pscan = pytest.importorskip("mambapy.pscan").pscan


@pytest.mark.parametrize("L", [1, 13, 32, 50])
def test_scan_equals_mambapy(inputs, results, assert_close, L):
    """Guards against an error that our reference and our kernels might share."""

    def theirs(u, delta, A, B, C, D):
        decay_BLEN = torch.exp(delta[..., None] * A)
        h_BLEN = pscan(decay_BLEN, (delta * u)[..., None] * B[:, :, None])
        return (h_BLEN @ C[..., None])[..., 0] + D * u, h_BLEN[:, -1]

    def ours(*tensors):
        return cpu.selective_scan(*tensors, None)

    tensors = inputs(2, L, 6, 5)
    del tensors["h"]
    assert_close(results(ours, tensors), results(theirs, tensors), 1e-9)
