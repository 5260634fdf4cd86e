"""The selective scan, forward and backward with a gradient through the final state, beside what users would otherwise take."""

import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numba import njit
from torch import Tensor

import mambacl.tasks.vision  # noqa: F401  # transformers imports torchvision, and could not by itself
from mambacl.learners.mixers.mamba import MambaMixer
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.scan import reference, selective_scan
from mambacl.learners.scan.kernels import BLOCK, FAST, REGISTER, exp2, load_block, row, store
from mambacl.platform.benchmarks.measure import Row, Scope, differs, measure
from mambacl.platform.benchmarks.others import renamed

SHAPES = ((16, 200, 1024, 16), (16, 200, 256, 64), (4, 1000, 256, 16), (2, 4000, 256, 16), (16, 200, 256, 128))
"""B episodes, L tokens, E inner width, N state size. The targets are those of the first."""

NARROW = 16
"""Inner width of the mixers that are compared, in widths: common ones have 2."""

Scan = Callable[..., tuple[Tensor | None, Tensor]]
OURS, LOOP = "our kernel", "loop over unbound steps"
TARGETS = {LOOP: 10, "mambapy": 15}
"""How many times faster than these the kernel is to be."""


def rows(scope: Scope) -> Iterator[Row]:
    """A kernel that answers otherwise than the others is not timed."""
    threads = torch.get_num_threads()
    shapes = {"full": SHAPES, "quick": SHAPES[:1], "tiny": ((2, 20, 32, 8),)}[scope]
    for number, shape in enumerate(shapes):
        yield from shape_rows(shape, threads, scope, targets=number == 0)
    yield from mixer_rows(shapes[0], threads, scope)
    yield from roofline_rows(shapes[0], threads, scope)


def shape_rows(shape: tuple[int, int, int, int], threads: int, scope: Scope, targets: bool) -> Iterator[Row]:
    """Times at one shape, and how many times the kernel is faster."""
    what, tensors = f"scan {' x '.join(map(str, shape))}", inputs(shape)
    sides = {OURS: selective_scan, LOOP: reference_scan}
    if importlib.util.find_spec("mambapy"):
        sides["mambapy"] = mambapy_scan
    else:
        yield Row(f"{what}: mambapy", note="needs the package mambapy: pip install 'mambacl[bench]'")
    expected = gradients(reference_scan, tensors)
    wrong = [name for name, scan in sides.items() if any(map(differs, gradients(scan, tensors), expected))]
    if wrong:
        yield Row(what, note=f"{' and '.join(wrong)} differ from the reference")
        return
    runs = [lambda scan=scan: gradients(scan, tensors) for scan in sides.values()]
    seconds = measure(runs, threads, scope, seconds=5.0)
    for name, column in zip(sides, seconds.T, strict=True):
        yield Row.of(f"{what}: {name}", "ms", 1e3 * column, threads)
    for number, name in enumerate(sides):
        if name != OURS:
            ratio = seconds[:, number] / seconds[:, 0]
            yield Row.of(
                f"{what}: times faster than {name}", "x", ratio, threads, above=TARGETS[name] if targets else None
            )


def inputs(shape: tuple[int, int, int, int]) -> list[Tensor]:
    """u, delta, A, B, C, D as a fresh Mamba's mixer has them: steps of 0.001 to 0.1 and rates that are multiples of its decay.
    With faster ones the state sinks to denormal numbers, which take several times as long as what learners meet."""
    B, L, E, N = shape
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = MambaMixer(MambaConfig(width=E // 2, state_size=N))
        _, token = mixer.read(torch.randn(B, L, E // 2), mixer.init_state(B))
        tensors = [token["u"], token["delta"], mixer.A, token["B"], token["C"], mixer.D]
    return [tensor.detach().requires_grad_() for tensor in tensors]


def gradients(scan: Scan, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Of the sum of outputs and final state, in every tensor."""
    y, h = scan(*tensors)
    assert y is not None
    return torch.autograd.grad(y.sum() + h.sum(), tensors)


def reference_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor | None, Tensor]:
    return reference.selective_scan(u, delta, A, B, C, D, None)


def mambapy_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """Its parallel scan over all states, written out."""
    from mambapy.pscan import pscan

    states = pscan(torch.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None])
    return (states @ C[..., None])[..., 0] + D * u, states[:, -1]


def mixer_rows(shape: tuple[int, int, int, int], threads: int, scope: Scope) -> Iterator[Row]:
    """Beside the plain path of transformers, which cannot be had without the rest of its mixer: both have the scan of this shape,
    in mixers so narrow that their products are next to nothing."""
    B, L, E, N = shape
    width = E // NARROW
    what = f"mixer of width {width} with a scan {' x '.join(map(str, shape))}"
    if not importlib.util.find_spec("transformers"):
        yield Row(f"{what}: transformers", note="needs the package transformers: pip install 'mambacl[bench]'")
        return
    import transformers
    from transformers.models.mamba.modeling_mamba import MambaMixer as Theirs

    x = torch.randn(B, L, width, generator=torch.Generator().manual_seed(0))
    ours = MambaMixer(MambaConfig(width=width, expand=NARROW, state_size=N))
    config = transformers.MambaConfig(hidden_size=width, expand=NARROW, state_size=N, num_hidden_layers=1)
    theirs = Theirs(config, 0)
    theirs.load_state_dict(renamed(ours))

    def our_output() -> Tensor:
        output, _, _ = ours.stream(x, ours.init_state(B), outputs=True)
        assert output is not None
        return output

    if differs(theirs(x).detach(), our_output().detach()):
        yield Row(what, note="transformers' answers otherwise than ours")
        return
    runs = [lambda: our_output().sum().backward(), lambda: theirs(x).sum().backward()]
    seconds = measure(runs, threads, scope, seconds=0.0)
    yield Row.of(f"{what}: ours", "ms", 1e3 * seconds[:, 0], threads)
    yield Row.of(f"{what}: transformers' plain path", "ms", 1e3 * seconds[:, 1], threads)
    yield Row.of(f"{what}: times faster", "x", seconds[:, 1] / seconds[:, 0], threads, above=100)


# ---- how near the kernel is to what the processor can do ----

EXPONENTIALS, PRODUCTS = 2, 13
"""Of each entry at each token, forward and backward: exponentials with the product before them (the backward pass computes
states anew), and other products, each with a sum where it has one."""
ROUNDS = 20_000


def roofline_rows(shape: tuple[int, int, int, int], threads: int, scope: Scope) -> Iterator[Row]:
    """The time that exponentials and products alone would take at the rates that this processor has on registers."""
    tensors, blocks = inputs(shape), np.linspace(-1, 1, 2 * BLOCK * REGISTER // 4, dtype=np.float32)
    rounds = 100 if scope == "tiny" else ROUNDS
    runs = [
        lambda: gradients(selective_scan, tensors),
        lambda: exponentials(blocks.copy(), rounds),
        lambda: products(blocks.copy(), rounds),
    ]
    whole, exponential, product = measure(runs, 1, scope, seconds=5.0).T
    each = np.prod(shape) / (rounds * blocks.size)
    bound = each * (EXPONENTIALS * exponential + PRODUCTS * product)
    what = f"scan {' x '.join(map(str, shape))}"
    yield Row.of(f"{what}: exponentials and products alone", "ms", 1e3 * bound, 1)
    yield Row.of(f"{what}: share of the processor's peak", "%", 100 * bound / whole, 1, above=60)


@njit(**FAST)
def exponentials(blocks, rounds):
    """On two blocks of vectors in registers: one alone would wait for its own results."""
    x, y = load_block(blocks, 0, 1), load_block(blocks, BLOCK, 1)
    total_x, total_y = x, y
    for k in range(rounds):
        rate = row(blocks, np.float32(k) * np.float32(1e-6))
        total_x, total_y = total_x + exp2(x * rate), total_y + exp2(y * rate)
    store(blocks, 0, 1, total_x + total_y)


@njit(**FAST)
def products(blocks, rounds):
    x, y = load_block(blocks, 0, 1), load_block(blocks, BLOCK, 1)
    total_x, total_y = x, y
    for k in range(rounds):
        factor = row(blocks, np.float32(k) * np.float32(1e-6))
        total_x, total_y = total_x * factor + x, total_y * factor + y
    store(blocks, 0, 1, total_x + total_y)
