"""The Triton kernels compute what the formulas of the reference say: on a GPU, or without one in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mambacl.learners.scan import reference

pytest.importorskip("triton", reason="needs triton: pip install triton")
from mambacl.learners.scan import gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def there(*tensors):
    return [x if x is None else x.to(DEVICE) for x in tensors]


def scan(*tensors):
    y, h = gpu.selective_scan(*there(*tensors))
    return (None if y is None else y.cpu()), h.cpu()


def read(*tensors):
    return gpu.selective_read(*there(*tensors)).cpu()


@pytest.fixture
def small(monkeypatch):
    """Chunks and tiles so small that a few tokens and channels fill several."""
    monkeypatch.setattr(gpu, "CHUNK", 4)
    monkeypatch.setattr(gpu, "TILE", 4)


@pytest.mark.usefixtures("small")
@settings(max_examples=25, deadline=None, derandomize=True, phases=(Phase.generate,))  # to shrink takes minutes
@given(
    B=st.integers(1, 2),
    L=st.sampled_from([1, 3, 4, 5, 8, 9]),
    E=st.sampled_from([1, 3, 4, 5, 9]),
    N=st.sampled_from([1, 2, 3, 5, 8]),
    absent=st.sets(st.sampled_from("CDh")),
    weights=st.sampled_from(["yh", "y", "h"]),
    reads=st.booleans(),
)
def test_any_shape_with_or_without_optional_tensors(inputs, results, assert_close, B, L, E, N, absent, weights, reads):
    """Guards the borders of chunks and tiles, absent arguments, and losses that use one output only."""
    if reads:
        absent, weights = absent & {"D"}, "y"
    elif "C" in absent:
        weights = "h"
    tensors = inputs(B, L, E, N) | dict.fromkeys(absent)
    slow = reference.selective_read if reads else reference.selective_scan
    assert_close(results(read if reads else scan, tensors, weights), results(slow, tensors, weights), 1e-9)


@pytest.mark.parametrize("N", [7, 33])
def test_single_precision_at_true_sizes(inputs, results, assert_close, N):
    """Guards the sizes of chunks and tiles that are in use, and sums in float32."""
    tensors = inputs(1, 19, 18, N, torch.float32)
    doubles = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
    assert_close(results(scan, tensors), results(reference.selective_scan, doubles), 1e-4)
    assert_close(results(read, tensors), results(reference.selective_read, doubles), 1e-4)


@pytest.mark.usefixtures("small")
def test_tokens_in_half_precision_meet_a_state_in_single(inputs, results, assert_close):
    """Guards training under autocast: what is rounded is what goes in and comes out, not what is kept and summed."""
    tensors = inputs(2, 9, 5, 3, torch.float32)
    for name in ("u", "B", "C"):
        tensors[name] = tensors[name].detach().bfloat16().requires_grad_()
    doubles = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
    found, expected = results(scan, tensors), results(reference.selective_scan, doubles)
    assert {name for name, x in found.items() if x.dtype == torch.bfloat16} == {"y", "du", "dB", "dC"}
    exact = ("h", "ddelta", "dA", "dh")
    weights_of_y = {name: found.pop(name) for name in exact}
    assert_close(weights_of_y, {name: expected.pop(name) for name in exact}, 5e-3)
    assert_close(found, expected, 1e-2)
    last = scan(*tensors.values())[1]
    assert_close({"h": last}, {"h": reference.selective_scan(*doubles.values())[1]}, 1e-6)


@pytest.mark.usefixtures("small")
def test_results_do_not_depend_on_what_memory_held(inputs, results, monkeypatch):
    """Guards against anything uninitialised, and sums in an order of chance: all memory that is handed out holds NaN."""
    tensors = inputs(2, 9, 6, 3, torch.float32)
    functions = (scan, read, lambda u, d, A, B, *_: scan(u, d, A, B, None, None, None))
    clean = [results(function, tensors) for function in functions]
    for name in ("empty_like", "Tensor.new_empty"):
        place, _, attribute = f"torch.{name}".rpartition(".")
        owner = torch.Tensor if place == "torch.Tensor" else torch
        made = getattr(owner, attribute)
        monkeypatch.setattr(owner, attribute, lambda *a, made=made, **k: made(*a, **k).fill_(float("nan")))
    for function, expected in zip(functions, clean, strict=True):
        for name, tensor in results(function, tensors).items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "h"])
def test_nan_reaches_outputs(inputs, name):
    """Guards against masks that lose a NaN: a diverged run must show."""
    tensors = inputs(1, 5, 5, 3, torch.float32)
    with torch.no_grad():
        tensors[name].flatten()[2] = float("nan")
    for found, expected in zip(scan(*tensors.values()), reference.selective_scan(*tensors.values()), strict=True):
        assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(read(*tensors.values()).isnan(), reference.selective_read(*tensors.values()).isnan())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_large_step_forgets_everything(inputs, results, assert_close, size):
    """Guards the underflow of the decay: the past is multiplied by 0 and nothing becomes NaN, in gradients neither."""
    tensors = inputs(1, 6, 5, 3, torch.float32)
    tensors["delta"] = torch.full_like(tensors["delta"], size, requires_grad=True)
    tensors["A"] = torch.full_like(tensors["A"], -1, requires_grad=True)
    tensors["u"] = (torch.randn_like(tensors["u"]) / size).requires_grad_()
    assert_close(results(scan, tensors), results(reference.selective_scan, tensors), 1e-4)


@pytest.mark.parametrize(("B", "L", "E"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_do(inputs, results, assert_close, B, L, E):
    """Guards an empty batch, a stream without tokens, an episode without queries and a layer without channels."""
    tensors = inputs(B, L, E, 3)
    assert_close(results(scan, tensors), results(reference.selective_scan, tensors), 1e-9)
    assert_close(results(read, tensors), results(reference.selective_read, tensors), 1e-9)


@pytest.mark.usefixtures("small")
def test_strided_inputs_and_no_gradients(inputs):
    """Guards views read as if they were contiguous, and evaluation, which must not keep the states of backward."""
    u, delta, A, B, C, D, h = (x.detach() for x in inputs(2, 5, 5, 3).values())
    flip = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (u, delta)]
    both = torch.cat([B, C], -1).chunk(2, -1)
    y, last = scan(*flip, A.t().contiguous().t(), *both, D[:1].expand(len(D)), h)
    expected = reference.selective_scan(u, delta, A, B, C, D[:1].expand(len(D)), h)
    assert torch.allclose(y, expected[0])
    assert torch.allclose(last, expected[1])
    assert not y.requires_grad


def test_memory_of_backward(inputs):
    """Guards the point of chunks: besides the inputs L / CHUNK states are kept."""
    kept: dict[int, int] = {}

    def count(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    tensors = inputs(1, 32, 16, 8, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        gpu.selective_scan(*there(*tensors.values()))
    of_inputs = sum(tensors[name].numel() for name in ("u", "delta", "A", "B", "C", "D"))
    assert sum(kept.values()) == of_inputs + 32 // gpu.CHUNK * 16 * 8


@pytest.mark.usefixtures("small")
def test_second_derivatives_are_refused(inputs):
    """Guards against second derivatives that are silently zero: only the first are written."""
    tensors = inputs(1, 3, 2, 2)
    y, _ = scan(*tensors.values())
    with pytest.raises(RuntimeError, match="triton kernel has first derivatives only"):
        torch.autograd.grad(y.sum(), tensors["u"], create_graph=True)


def test_half_a_state_and_other_devices_are_refused(inputs):
    """Guards sums in half precision."""
    with pytest.raises(ValueError, match="takes A in float32 or float64 on a GPU"):
        gpu.selective_scan(*(x.to(torch.bfloat16) for x in inputs(1, 2, 3, 4).values()))


COMPILED = """
import itertools
import triton
from triton.backends.compiler import GPUTarget
from mambacl.learners.scan import gpu_kernels

TOKENS = ("u", "delta", "B", "C", "y", "dy", "du", "ddelta")


def compiled(kernel, architecture, **constants):
    names = kernel.arg_names
    constants |= {"CHUNK": 2, "TILE": 16}
    types = {
        name: "constexpr" if name in constants else "i32" if name in ("L", "E", "N")
        else "*bf16" if name.split("_")[0] in TOKENS else "*fp32"
        for name in names
    }
    places = {(names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(fn=kernel, signature=types, constexprs=places)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": 2}).asm["cubin"]


for architecture, state, queries in ((80, 32, False), (90, 1, True)):
    common = {"STATE": state, "QUERIES": queries, "OUTPUTS": True, "DIRECT": True}
    assert compiled(gpu_kernels.forward, architecture, SAVES=not queries, **common)
    assert compiled(gpu_kernels.backward, architecture, **common)
"""


def test_kernels_compile_for_gpus(tmp_path):
    """Guards what Triton's interpreter accepts and its compiler refuses; the compiler needs no GPU."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", COMPILED], env=environment, check=True, timeout=500)
