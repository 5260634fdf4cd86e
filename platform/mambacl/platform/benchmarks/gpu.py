"""One GPU: errors of its kernels against float64, then scans and whole episodes beside what the device can do.

Also a file to run by itself, where nothing is installed but torch, numpy, einops, safetensors, pydantic, lazy-loader and this
package, without its dependencies; and triton, mamba-ssm and flash-linear-attention, as far as there are:

    python platform/mambacl/platform/benchmarks/gpu.py --output gpu.json
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from mambacl.learners.scan import SELECTIVE
from mambacl.platform.benchmarks import report
from mambacl.platform.benchmarks.gpu_errors import error_rows, kernels, selective_inputs
from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.platform.machine import device
from mambacl.tasks.config import ConfigError

SHAPE = (16, 200, 1024, 16)
"""B episodes, L tokens, E inner width, N state size of the paper's Mamba in training."""

COMPILE_UNTIL = 240.0
"""Seconds after which nothing more is compiled, so that all is done in eight minutes."""


def rows(scope: Scope) -> Iterator[Row]:
    """Tiny, it runs without a GPU, too: on the CPU, with the Triton kernels in their interpreter."""
    begun, at = time.monotonic(), device()
    if at.type == "cpu":
        if scope != "tiny":
            raise ConfigError("bench gpu: torch finds no GPU here; --tiny runs all of it on the CPU")
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from mambacl.platform.benchmarks.gpu_episodes import episode_rows  # torch's counter of operations imports Triton

    yield from error_rows(at, scope)
    bandwidth, products = yield from peak_rows(at, scope)
    yield from scan_rows(at, scope, bandwidth)
    for training in (True, False):
        yield from episode_rows(at, scope, training, products, begun + COMPILE_UNTIL)


def peak_rows(at: torch.device, scope: Scope) -> Generator[Row, None, tuple[float, float]]:
    """Yields rows; returns the bytes and the operations a second that a large copy and a large product reach."""
    source = torch.empty(2**18 if scope == "tiny" else 2**30, dtype=torch.uint8, device=at)
    target, side, threads = torch.empty_like(source), 64 if scope == "tiny" else 8192, torch.get_num_threads()
    left, right = (torch.randn(side, side, device=at, dtype=torch.bfloat16) for _ in range(2))
    copy, product = measure([lambda: target.copy_(source), lambda: left @ right], threads, scope, seconds=2.0).T
    bandwidth, products = 2 * len(source) / copy, 2 * side**3 / product
    yield Row.of("memory, a large copy", "GB/s", bandwidth / 1e9, threads)
    yield Row.of("matrix products in bfloat16", "TFLOP/s", products / 1e12, threads)
    return float(np.median(bandwidth)), float(np.median(products))


def scan_rows(at: torch.device, scope: Scope, bandwidth: float) -> Iterator[Row]:
    """The selective scan by each kernel, and the share of the bandwidth that its tokens alone take."""
    B, L, E, N = shape = (1, 5, 4, 3) if scope == "tiny" else SHAPE
    tensors, threads = selective_inputs(shape, torch.float32, at, seed=0), torch.get_num_threads()

    @torch.no_grad()
    def forward(module: ModuleType) -> None:
        module.selective_scan(*tensors)

    def both(module: ModuleType) -> None:
        y, last = module.selective_scan(*tensors)
        torch.autograd.grad(y.sum() + last.sum(), tensors)

    modules = {name: module for name, module in kernels(SELECTIVE, at).items() if not isinstance(module, str)}
    # Numbers: u, delta, y, B and C; backward u, delta, dy, du, ddelta, B, C, dB and dC.
    sides = {"forward": (forward, B * L * (3 * E + 2 * N)), "forward and backward": (both, B * L * (8 * E + 6 * N))}
    runs = [functools.partial(run, module) for module in modules.values() for run, _ in sides.values()]
    times = iter(measure(runs, threads, scope, seconds=5.0).T if runs else ())
    for name in modules:
        for kind, (_, numbers) in sides.items():
            what, seconds = f"scan {' x '.join(map(str, shape))}, {name}, {kind}", next(times)
            yield Row.of(what, "ms", 1e3 * seconds, threads)
            share = 100 * 4 * numbers / seconds / bandwidth
            yield Row.of(f"{what}: share of the bandwidth", "%", share, threads)


def main() -> int:
    """What `mambacl bench gpu` does, without a command line that needs more packages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="at sizes that say nothing of speed, to see that it works")
    parser.add_argument("--output", type=Path, help="write the result into this .json file, too")
    options = parser.parse_args()
    scope: Scope = "tiny" if options.tiny else "full"
    begun, found = time.monotonic(), []
    try:
        for row in rows(scope):
            found.append(row)
            print(report.line(row, scope), flush=True)
    except ConfigError as error:
        print(f"mambacl: {error}", file=sys.stderr)
        return 2
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        content = report.content("gpu", scope, {"gpu": found}, {"gpu": round(time.monotonic() - begun, 1)})
        options.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
