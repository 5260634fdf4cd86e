"""What must hold of the CPU kernels whatever the numbers, the memory and the threads."""

import threading

import numba
import numpy as np
import pytest
import torch

from mambacl.learners.scan import cpu, kernels, reference

LARGE = (2, 40, 300, 8)  # enough work for several threads


@numba.njit
def of_numbers(x):
    y = np.empty_like(x)
    for i in range(x.size):
        y[i] = kernels.exp2(x[i])
    return y


@numba.njit
def of_whole_vectors(x, lanes):
    y = np.empty_like(x)
    for i in range(x.size // lanes):
        kernels.store(y, i, 0, kernels.exp2(kernels.load(x, i)))
    return y


def of_vectors(x):
    lanes = kernels.REGISTER // x.itemsize
    return of_whole_vectors(np.pad(x, (0, -x.size % lanes)), lanes)[: x.size]


@pytest.fixture(params=[of_numbers, of_vectors])
def power(request):
    """exp2 of an array, number by number or as kernels take it, for which some processors have instructions of their own."""
    return request.param


def test_exponential_has_the_same_bits_for_vectors():
    """Guards the instructions that some processors have for it: they are the same function."""
    for real, last in ((np.float32, 126), (np.float64, 1022)):
        x = np.linspace(-last, last, 100_003, dtype=real)
        assert (of_numbers(x) == of_vectors(x)).all()


def test_float32_exponential_is_accurate(power):
    """Guards the polynomial: at most two units in the last place over all normal results, exact at whole numbers."""
    x = np.linspace(-126, 127.99, 1_000_003, dtype=np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert (np.abs(power(x) - exact) / np.spacing(exact.astype(np.float32))).max() < 2
    whole = np.arange(-126, 128)
    assert (power(whole.astype(np.float32)) == np.ldexp(np.float32(1), whole)).all()


def test_float64_exponential_is_accurate(power):
    """The same for float64's series, beside numpy's."""
    x = np.linspace(-1022, 1023.99, 1_000_003)
    exact = np.exp2(x)
    assert (np.abs(power(x) - exact) / np.spacing(exact)).max() < 3
    whole = np.arange(-1022, 1024)
    assert (power(whole.astype(float)) == np.ldexp(1.0, whole)).all()
    assert power(np.array([-1023.1, -np.inf, 1024, np.inf])).tolist() == [0, 0, np.inf, np.inf]
    assert np.isnan(power(np.array([np.nan]))).all()


def test_float32_exponential_at_its_ends(power):
    """Guards the bit arithmetic where the exponent of a float ends, and NaN."""
    low = np.array([-127.1, -128, -200, -1e9, -3e38, -np.inf], dtype=np.float32)
    high = np.array([128, 128.1, 129, 500, 1e9, 3e38, np.inf], dtype=np.float32)
    assert (power(low) == 0).all()
    assert np.isposinf(power(high)).all()
    assert np.isnan(power(np.array([np.nan, -np.nan], dtype=np.float32))).all()
    between = power(np.linspace(-127, -126, 1001, dtype=np.float32))
    assert ((between >= 0) & (between <= 2.0**-126)).all()


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "h"])
def test_nan_reaches_outputs_loss_and_gradients(inputs, name):
    """Guards against compiler flags and shortcuts that lose a NaN: a diverged run must show."""
    tensors = inputs(2, 20, 130, 5, torch.float32)
    with torch.no_grad():
        tensors[name].flatten()[7 % tensors[name].numel()] = float("nan")
    for function, slow in (
        (cpu.selective_scan, reference.selective_scan),
        (cpu.selective_read, reference.selective_read),
    ):
        outputs, expected = function(*tensors.values()), slow(*tensors.values())
        outputs, expected = (x if isinstance(x, tuple) else (x,) for x in (outputs, expected))
        for output, other in zip(outputs, expected, strict=True):
            assert torch.equal(output.isnan(), other.isnan())
        loss = sum(output.sum() for output in outputs)
        assert loss.isnan()
        gradients = torch.autograd.grad(loss, list(tensors.values()))
        assert any(gradient.isnan().any() for gradient in gradients)


def test_nan_with_a_payload_in_A(inputs):
    """Guards the bit arithmetic against a NaN whose low bits are set."""
    tensors = inputs(1, 3, 2, 2, torch.float32)
    with torch.no_grad():
        tensors["A"].view(torch.int32)[0, 0] = 0x7FC00001
        _, h = cpu.selective_scan(*tensors.values())
    assert h[0, 0, 0].isnan()


def test_results_do_not_depend_on_what_memory_held(inputs, results, monkeypatch):
    """Guards against anything uninitialised: all memory that is handed out holds NaN."""
    tensors = inputs(2, 21, 130, 5, torch.float32)
    functions = (
        cpu.selective_scan,
        cpu.selective_read,
        lambda u, d, A, B, *_: cpu.selective_scan(u, d, A, B, None, None, None),
    )
    clean = [results(function, tensors) for function in functions]
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def poison(x):
        return x.fill_(255 if x.dtype == torch.uint8 else float("nan"))  # bytes of ones are NaN, too

    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(empty(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: poison(new_empty(*a, **k)))
    for function, expected in zip(functions, clean, strict=True):
        for name, tensor in results(function, tensors).items():
            assert torch.equal(tensor, expected[name]), name


def test_a_step_of_zero_changes_nothing(inputs):
    """Guards exp(0) = 1, exactly: padding with delta = 0 leaves the state as it was."""
    tensors = inputs(2, 40, 130, 5, torch.float32)
    tensors["delta"] = torch.zeros_like(tensors["delta"])
    y, h = cpu.selective_scan(*tensors.values())
    assert torch.equal(h, tensors["h"])
    assert torch.allclose(y, torch.einsum("bln,ben->ble", tensors["C"], h) + tensors["D"] * tensors["u"], atol=1e-5)


@pytest.mark.parametrize("size", [1e3, 1e10, 1e30])
def test_a_large_step_forgets_everything(inputs, results, assert_close, size):
    """Guards the underflow of the decay: the past is multiplied by 0 and nothing becomes NaN, in gradients neither."""
    tensors = inputs(2, 20, 130, 5, torch.float32)
    tensors["delta"] = torch.full_like(tensors["delta"], size, requires_grad=True)
    tensors["A"] = torch.full_like(tensors["A"], -1, requires_grad=True)
    tensors["u"] = (torch.randn_like(tensors["u"]) / size).requires_grad_()
    actual = results(cpu.selective_scan, tensors)
    assert torch.equal(actual["h"], (size * tensors["u"])[:, -1, :, None] * tensors["B"][:, -1, None])
    assert_close(actual, results(reference.selective_scan, tensors), 1e-4)


def test_bits_do_not_depend_on_threads(inputs, results, threads):
    """Guards reproducibility between machines with different numbers of cores."""
    tensors = inputs(*LARGE, torch.float32)
    found = []
    for number in (1, 2, 3, 7):
        threads(number)
        found.append(
            results(cpu.selective_scan, tensors)
            | {f"read {k}": v for k, v in results(cpu.selective_read, tensors).items()}
        )
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.equal(tensor, other[name]), name


def test_calls_from_several_python_threads(inputs, results, threads):
    """Guards scans and their backward that run at the same time in one process, as two data-parallel replicas do."""
    threads(2)
    tensors = inputs(*LARGE, torch.float32)
    expected = results(cpu.selective_scan, tensors)
    found = []
    callers = [threading.Thread(target=lambda: found.append(results(cpu.selective_scan, tensors))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(found) == 4
    assert all(torch.equal(tensor, other[name]) for other in found for name, tensor in expected.items())


def test_memory_of_backward(inputs, monkeypatch):
    """Guards the point of chunks: besides the inputs L / CHUNK states are kept, and a workspace knows nothing of L and E."""
    kept: dict[int, int] = {}
    workspaces: list[int] = []
    allocate = cpu._vectors

    def count_workspace(*arguments):
        workspace = allocate(*arguments)
        workspaces.append(workspace.nbytes)
        return workspace

    def count_kept(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    monkeypatch.setattr(cpu, "_vectors", count_workspace)
    B, E, N = 2, 256, 32
    for L in (160, 320):
        tensors = inputs(B, L, E, N, torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(count_kept, lambda tensor: tensor):
            y, h = cpu.selective_scan(*tensors.values())
        (y.sum() + h.sum()).backward()
        of_inputs = sum(tensors[name].numel() for name in "uABCD") + tensors["delta"].numel()
        assert sum(kept.values()) == of_inputs + L // kernels.CHUNK * B * E * N
        assert max(workspaces) < 2**17
        kept.clear()


def test_warm_up_compiles_everything_once():
    """Guards the promise of warm_up: afterwards no call in float32 has to compile."""
    cpu.warm_up()
    compiled = [len(kernel.signatures) for kernel in (kernels.forward, kernels.backward)]
    x = torch.randn(3, 18, 5, requires_grad=True)
    A, B, h = -torch.ones(5, 2), torch.randn(3, 18, 2), torch.randn(3, 5, 2)
    y, last = cpu.selective_scan(x, x.exp(), A, B, B, torch.ones(5), h)
    (y.sum() + last.sum() + cpu.selective_read(x, x.exp(), A, B, B, None, last).sum()).backward()
    assert [len(kernel.signatures) for kernel in (kernels.forward, kernels.backward)] == compiled


def test_the_process_that_compiles_has_the_bits_of_those_that_load_the_cache(assert_same_from_cache):
    """Guards bit-equal resumption: the first process on a machine compiles, the one after a kill loads."""
    code = """
import hashlib, torch
from mambacl.learners.scan import cpu
torch.manual_seed(0)
x, B, C = (torch.randn(2, 40, size, requires_grad=True) for size in (64, 16, 16))
A, D = (-torch.rand(64, 16)).requires_grad_(), torch.randn(64, requires_grad=True)
y, h = cpu.selective_scan(x, x.exp() / 10, A, B, C, D, None)
r = cpu.selective_read(x, x.exp() / 10, A, B, C, D, h)
(y.square().sum() + h.square().sum() + r.square().sum()).backward()
numbers = [y, h, r, *(leaf.grad for leaf in (x, A, B, C, D))]
print(hashlib.sha256(b"".join(number.detach().numpy().tobytes() for number in numbers)).hexdigest())
"""
    assert_same_from_cache(code)
