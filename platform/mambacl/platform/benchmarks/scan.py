"""The selective scan, forward and backward with a gradient through the final state, beside what users would otherwise take."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mambacl.learners.mixers.mamba import MambaMixer
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.scan import reference, selective_scan
from mambacl.learners.scan.kernels import BLOCK, FAST, REGISTER, exp2, load_block, row, store
from mambacl.platform.benchmarks.measure import Row, Scope, differs, measure
from mambacl.platform.benchmarks.others import renamed, transformers_mamba
from mambacl.platform.benchmarks.sides import Side, Sides

SHAPES = ((16, 200, 1024, 16), (16, 200, 256, 64), (4, 1000, 256, 16), (2, 4000, 256, 16), (16, 200, 256, 128))
"""B episodes, L tokens, E inner width, N state size. The targets are those of the first."""

NARROW = 16
"""Inner width of the mixers that are compared, in widths: common ones have 2."""

Shape = tuple[int, int, int, int]
Scan = Callable[..., tuple[Tensor | None, Tensor]]
OURS, LOOP = "our kernel", "loop over unbound steps"
TARGETS = {LOOP: 10, "mambapy": 15}
"""How many times faster than these the kernel is to be."""


def rows(scope: Scope) -> Iterator[Row]:
    """A kernel that answers otherwise than the others is not timed."""
    threads = torch.get_num_threads()
    shapes = {"full": SHAPES, "quick": SHAPES[:1], "tiny": ((2, 20, 32, 8),)}[scope]
    with Sides(threads) as sides:
        for number, shape in enumerate(shapes):
            yield from shape_rows(sides, shape, threads, scope, targets=number == 0)
        yield from mixer_rows(sides, shapes[0], threads, scope)
    yield from roofline_rows(shapes[0], threads, scope)


def shape_rows(sides: Sides, shape: Shape, threads: int, scope: Scope, targets: bool) -> Iterator[Row]:
    """Times at one shape, and how many times the kernel is faster."""
    what = f"scan {' x '.join(map(str, shape))}"
    scans = {OURS: selective_scan, LOOP: reference_scan}
    if importlib.util.find_spec("mambapy"):
        scans["mambapy"] = mambapy_scan
    else:
        yield Row(f"{what}: mambapy", note="needs the package mambapy: pip install 'mambacl[bench]'")
    found = sides.make({name: partial(scan_side, scan, shape) for name, scan in scans.items()})
    wrong = [name for name in scans if any(map(differs, found[name], found[LOOP]))]
    if wrong:
        yield Row(what, note=f"{' and '.join(wrong)} differ from the reference")
        return
    seconds = sides.measure([*scans], scope, seconds=5.0)
    for name, column in seconds.items():
        yield Row.of(f"{what}: {name}", "ms", 1e3 * column, threads)
    for name, column in seconds.items():
        if name != OURS:
            above = TARGETS[name] if targets else None
            yield Row.of(f"{what}: times faster than {name}", "x", column / seconds[OURS], threads, above=above)


def scan_side(scan: Scan, shape: Shape) -> Side:
    """The scan with its gradients."""
    tensors = inputs(shape)
    return Side(lambda: gradients(scan, tensors), gradients(scan, tensors))


def inputs(shape: Shape) -> list[Tensor]:
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


def mixer_rows(sides: Sides, shape: Shape, threads: int, scope: Scope) -> Iterator[Row]:
    """Beside the plain path of transformers, which cannot be had without the rest of its mixer: both have the scan of this shape,
    in mixers so narrow that their products are next to nothing."""
    what = f"mixer of width {shape[2] // NARROW} with a scan {' x '.join(map(str, shape))}"
    if not importlib.util.find_spec("transformers"):
        yield Row(f"{what}: transformers", note="needs the package transformers: pip install 'mambacl[bench]'")
        return
    found = sides.make({"ours": partial(our_mixer, shape), "theirs": partial(their_mixer, shape)})
    if differs(found["theirs"][0], found["ours"][0]):
        yield Row(what, note="transformers' answers otherwise than ours")
        return
    ours, theirs = sides.measure([*found], scope, seconds=0.0).values()
    yield Row.of(f"{what}: ours", "ms", 1e3 * ours, threads)
    yield Row.of(f"{what}: transformers' plain path", "ms", 1e3 * theirs, threads)
    yield Row.of(f"{what}: times faster", "x", theirs / ours, threads, above=100)


def narrow_mixer(shape: Shape) -> tuple[MambaMixer, Tensor]:
    """A mixer of ours and what it reads, (B, L, D): always the same."""
    B, L, E, N = shape
    torch.manual_seed(0)
    return MambaMixer(MambaConfig(width=E // NARROW, expand=NARROW, state_size=N)), torch.randn(B, L, E // NARROW)


def our_mixer(shape: Shape) -> Side:
    mixer, x = narrow_mixer(shape)

    def output() -> Tensor:
        y, _, _ = mixer.stream(x, mixer.init_state(len(x)), outputs=True)
        assert y is not None
        return y

    return Side(lambda: output().sum().backward(), [output()])


def their_mixer(shape: Shape) -> Side:
    theirs, (ours, x) = transformers_mamba(), narrow_mixer(shape)
    config = theirs.MambaConfig(hidden_size=x.shape[-1], expand=NARROW, state_size=shape[-1], num_hidden_layers=1)
    mixer = theirs.MambaMixer(config, 0)
    mixer.load_state_dict(renamed(ours))
    return Side(lambda: mixer(x).sum().backward(), [mixer(x)])


# ---- how near the kernel is to what the processor can do ----

EXPONENTIALS, PRODUCTS = 2, 13
"""Of each entry at each token, forward and backward: exponentials with the product before them (the backward pass computes
states anew), and other products, each with a sum where it has one."""
ROUNDS = 20_000


def roofline_rows(shape: Shape, threads: int, scope: Scope) -> Iterator[Row]:
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
