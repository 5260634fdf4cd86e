"""Which kernel runs is right, said once, and never slow without a word."""

import logging
import subprocess
import sys

import pytest
import torch

from mambacl.learners import scan
from mambacl.learners.scan.dispatch import Recurrence


@pytest.fixture(autouse=True)
def _as_in_a_new_process():
    Recurrence.module.cache_clear()
    yield
    Recurrence.module.cache_clear()


def call(inputs, **options):
    return scan.selective_scan(*inputs(1, 3, 2, 2).values(), **options)


def test_the_cpu_runs_numba_and_says_so_once(inputs, caplog):
    """Guards the announcement: one line for each process, not for each layer and step."""
    with caplog.at_level(logging.INFO, logger="mambacl"):
        call(inputs)
        call(inputs)
    assert [r.message for r in caplog.records] == ["selective scan on cpu: numba kernel (fastest on cpu)"]
    assert scan.SELECTIVE.describe("cpu") == ("numba", "fastest on cpu")


def test_all_kernels_of_the_cpu_agree(inputs):
    """Guards the table from names to modules."""
    auto, numba, slow = (call(inputs, kernel=kernel) for kernel in ("auto", "numba", "reference"))
    assert torch.equal(auto[0], numba[0])
    assert torch.allclose(auto[0], slow[0])
    read = [scan.selective_read(*inputs(1, 3, 2, 2).values(), kernel=kernel) for kernel in ("auto", "reference")]
    assert torch.allclose(*read)


def test_a_slow_path_is_a_warning(inputs, caplog, monkeypatch):
    """Guards against hours at a tenth of the speed because of a package that is missing."""
    monkeypatch.setattr(
        Recurrence, "obstacle", lambda recurrence, kernel, device: "No module named 'numba'; pip install numba"
    )
    assert call(inputs)[0] is not None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "reference kernel (slow: No module named 'numba'; pip install numba)" in record.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_without_kernels_falls_back_and_tells_how_to_get_them():
    """Guards the probe: a kernel must have run, not only be importable. The fastest one is named."""
    name, reason = scan.SELECTIVE.describe("cuda")
    assert name == "reference"
    assert reason.startswith("slow: ")
    assert reason.endswith("pip install triton")
    with pytest.raises(RuntimeError, match=r"cannot run on cuda: .*MAMBA_KEEP_CUDA_BUILD=TRUE pip install"):
        scan.SELECTIVE.describe("cuda", "mamba_ssm")


def test_other_devices_run_the_reference():
    """Guards devices nobody wrote a kernel for."""
    assert scan.SELECTIVE.describe("mps") == ("reference", "slow: there is no kernel for mps")


def test_a_kernel_that_cannot_run_is_an_error_of_one_line(inputs):
    """Guards a forced choice: it is obeyed or refused, never replaced."""
    with pytest.raises(
        RuntimeError, match=r"^kernel mamba_ssm cannot run on cpu: mamba_ssm runs on an NVIDIA GPU only$"
    ):
        call(inputs, kernel="mamba_ssm")
    with pytest.raises(RuntimeError, match="numba runs on the CPU only"):
        scan.SELECTIVE.describe("cuda", "numba")
    with pytest.raises(ValueError, match='unknown kernel "fast"'):
        call(inputs, kernel="fast")


@pytest.mark.parametrize("kernel", ["numba", "reference"])
@pytest.mark.parametrize("name", ["delta", "B", "C", "D", "h"])
def test_wrong_shapes_and_dtypes_are_refused(inputs, kernel, name):
    """Guards memory: a kernel that trusts a wrong shape reads beyond its arrays."""
    for wrong in (lambda x: x[..., :1], lambda x: x.float()):
        tensors = inputs(2, 3, 4, 5)
        tensors[name] = wrong(tensors[name])
        with pytest.raises(ValueError, match=name):
            scan.selective_scan(*tensors.values(), kernel=kernel)
        with pytest.raises(ValueError, match=name):
            scan.selective_read(*tensors.values(), kernel=kernel)


def test_tokens_in_half_precision_meet_a_state_in_single(inputs):
    """Guards training under autocast, which makes some of the tokens so: no kernel may refuse them, nor keep a state so."""
    tensors = inputs(1, 5, 4, 3, torch.float32)
    tensors |= {name: tensors[name].bfloat16() for name in "BC"}
    y, h = scan.selective_scan(*tensors.values())
    z = scan.selective_read(*tensors.values())
    expected = [x.float() for x in tensors.values()]
    assert y.dtype == h.dtype == z.dtype == torch.float32
    assert torch.equal(y, scan.selective_scan(*expected)[0])
    assert torch.equal(z, scan.selective_read(*expected))


def test_a_state_in_half_precision_is_refused(inputs):
    """Guards the rule that scans run in float32 under autocast, too."""
    with pytest.raises(ValueError, match="float32 or float64"):
        scan.selective_scan(*inputs(1, 2, 3, 4, torch.bfloat16).values())


def test_importing_is_cheap():
    """Guards commands that never scan: they should not wait for numba."""
    code = "import sys, mambacl.learners.scan; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
