"""Episodes a second on a GPU, in training and in inference, at the paper's size: frozen features, 20 x 5, width 512.

In bfloat16, with recurrences in float32; as torch runs it, in a CUDA graph, and compiled and in a CUDA graph.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mambacl.learners.learner import Learner
from mambacl.learners.registry import build
from mambacl.learners.scan import SELECTIVE
from mambacl.learners.scan.matrix import MATRIX
from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.tasks.episode import Episode, Spec

LEARNERS: dict[str, dict[str, Any]] = {
    "mamba": {"layers": 3, "state_size": 16},
    "mamba2": {"layers": 3, "state_size": 64, "heads": 16},
    "attention": {"layers": 4, "heads": 8},
    "linear_attention": {"layers": 4, "heads": 8, "state_size": 64},
}
"""The paper's transformer has these layers and heads; with these its Mamba has about as many weights as it says."""

KERNELS = {"mamba": SELECTIVE, "mamba2": MATRIX, "linear_attention": MATRIX}

COMPILED = ("mamba", "attention")

PAPER = 2.6
"""Times as many episodes a second as the transformer that the paper's Mamba takes."""

Answers = Callable[[Learner, Episode], Tensor]


def episode_rows(at: torch.device, scope: Scope, training: bool, products: float, deadline: float) -> Iterator[Row]:
    """Rates of all learners, their shares of the rate of matrix products, and mamba beside attention.

    products: floating-point operations a second; deadline: of time.monotonic, after which nothing is compiled.
    """
    batch, what = 2 if scope == "tiny" else 16, "training" if training else "inference"
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    operations = {}
    for name in LEARNERS:
        learner, episode = learner_of(name, scope).to(at), episode_of(batch, scope).to(at)
        title = f"{name}{f' by {KERNELS[name].describe(at)[0]}' if name in KERNELS else ''}, {what}"
        make = trainer if training else answerer
        run = make(learner, episode, answers)
        with FlopCounterMode(display=False) as counter:
            run()
        operations[name] = counter.get_total_flops()
        runs[name, title] = run
        if at.type != "cuda":
            continue
        runs[name, f"{title}, CUDA graph"] = graphed(run)
        if name in COMPILED:
            title = f"{title}, compiled, CUDA graph"
            try:
                if time.monotonic() > deadline:
                    raise TimeoutError("it took too long to get here")
                runs[name, title] = graphed(make(learner, episode, torch.compile(answers)))
            except Exception as error:  # a compiler may raise anything
                yield Row(title, note=f"{type(error).__name__}: {error}".splitlines()[0])
    rates = batch / measure(list(runs.values()), torch.get_num_threads(), scope, seconds=20.0).T
    for (_, title), rate in zip(runs, rates, strict=True):
        yield Row.of(title, "episodes/s", rate, torch.get_num_threads())
    yield from best_rows(list(runs), rates, what, {name: operations[name] / batch / products for name in LEARNERS})


def best_rows(titles: list[tuple[str, str]], rates: np.ndarray, what: str, seconds: dict[str, float]) -> Iterator[Row]:
    """Of the fastest way to run each learner. seconds: that its matrix products take for an episode at their peak."""
    best: dict[str, np.ndarray] = {}
    for (name, _), rate in zip(titles, rates, strict=True):
        if name not in best or np.median(rate) > np.median(best[name]):
            best[name] = rate
    threads = torch.get_num_threads()
    for name, rate in best.items():
        yield Row.of(f"{name}, {what}: share of the peak of matrix products", "%", 100 * seconds[name] * rate, threads)
    ratio = best["mamba"] / best["attention"]
    yield Row.of(f"mamba, {what}: times the episodes of attention", "x", ratio, threads, above=PAPER)


def learner_of(name: str, scope: Scope) -> Learner:
    """With fresh weights, and with weights to answer to everything."""
    width, codes = (16, 3) if scope == "tiny" else (512, 100)
    sizes = dict.fromkeys(LEARNERS[name], 2) if scope == "tiny" else LEARNERS[name]
    spec = Spec(input="vector", shape=(width,), output="classification", size=codes, digest="noise")
    torch.manual_seed(0)
    learner = build({"name": name, "width": width, **sizes}, spec)
    nn.init.normal_(learner.head.weight, std=0.02)  # type: ignore[arg-type]  # zeros would make some gradients zero
    return learner


def episode_of(batch: int, scope: Scope) -> Episode:
    """Episodes of noise: how long they take does not depend on what they show."""
    tasks, shots, width = (3, 1, 16) if scope == "tiny" else (20, 5, 512)
    task = torch.arange(tasks).repeat_interleave(shots).expand(batch, -1)
    features = torch.randn(2, *task.shape, width, generator=torch.Generator().manual_seed(0))
    return Episode(
        support_x=features[0],
        support_y=task,
        support_task=task,
        query_x=features[1],
        query_y=task,
        query_task=task,
        query_after=torch.full_like(task, task.shape[1] - 1),
        index=torch.arange(batch),
        objective="classification",
    )


def answers(learner: Learner, episode: Episode) -> Tensor:
    """As `Learner.forward` where all queries come last; it asks the GPU whether they do, which no graph can hold."""
    support, asked = learner.inputs(episode)
    state = learner.absorb(learner.init_state(len(episode.index)), support, episode.support_y)
    return learner.answer(state, asked)


def trainer(learner: Learner, episode: Episode, answers: Answers) -> Callable[[], None]:
    """A whole step, with the optimiser."""
    on_gpu = episode.index.is_cuda
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4, fused=on_gpu, capturable=on_gpu)

    def step() -> None:
        with torch.autocast(episode.index.device.type, torch.bfloat16):
            prediction = answers(learner, episode)
        F.cross_entropy(prediction.float().transpose(1, 2), episode.query_y).backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def answerer(learner: Learner, episode: Episode, answers: Answers) -> Callable[[], None]:
    """Answers to all queries."""

    @torch.no_grad()
    def answer() -> None:
        with torch.autocast(episode.index.device.type, torch.bfloat16):
            answers(learner, episode)

    return answer


def graphed(run: Callable[[], None]) -> Callable[[], None]:
    """The same with all its kernels started at once, so that the host costs nothing."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
