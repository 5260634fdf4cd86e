"""What a learner costs: parameters, state, arithmetic and memory, counted and not timed."""

import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mambacl.learners.learner import Learner
from mambacl.learners.mixture import Mixture
from mambacl.learners.registry import build as build_learner
from mambacl.learners.sequence import SequenceLearner
from mambacl.platform.config import ExperimentConfig
from mambacl.tasks.episode import Episode
from mambacl.tasks.family import Family
from mambacl.tasks.registry import build as build_family

FORMULAS = {
    torch.ops.aten.linalg_cholesky_ex: lambda a, **_: _batch(a) * a[-1] ** 3 // 3,
    torch.ops.aten.cholesky_solve: lambda b, a, *_, **__: 2 * _batch(b) * a[-1] ** 2 * b[-1],
    **dict.fromkeys(
        (torch.ops.aten._euclidean_dist, torch.ops.aten._cdist_forward),
        lambda a, b, *_, **__: 3 * _batch(a) * a[-2] * b[-2] * a[-1],
    ),
    torch.ops.aten.linalg_solve_triangular: lambda a, b, *_, **__: _batch(b) * a[-1] * b[-1] * b[-2],
}
"""Operations on matrices that torch's counter does not know, from the shapes of their arguments."""


@dataclasses.dataclass(frozen=True)
class Size:
    """What is named beside every result of a learner."""

    parameters: int
    """Trained numbers, all together."""
    core_parameters: int
    """Those of the blocks: without encoder, label embedding and head."""
    active_parameters: int
    """Those that take part in one token: of a mixture's experts only as many as a token goes to."""
    state_floats: int
    """Numbers held after the stream of an episode."""
    support_flops: int
    """Floating-point operations to observe one support example (a multiply-add is two)."""
    query_flops: int
    """Floating-point operations to answer one query."""


@dataclasses.dataclass(frozen=True)
class Cost(Size):
    """And what an experiment asks of a machine."""

    episode_flops: int
    """Floating-point operations of a whole episode, forward."""
    train_bytes: int
    """Memory of weights, gradients, optimiser and kept activations in a training step."""


def count_parameters(learner: Learner) -> tuple[int, int, int]:
    """All parameters, those of the blocks, and those that take part in one token."""
    core = learner.blocks.parameters() if isinstance(learner, SequenceLearner) else ()
    total = sum(p.numel() for p in learner.parameters())
    idle = sum(module.idle_parameters for module in learner.modules() if isinstance(module, Mixture))
    return total, sum(p.numel() for p in core), total - idle


def count_flops(learner: Learner, episode: Episode) -> tuple[int, int]:
    """Floating-point operations to observe the stream of one episode, and to answer its queries."""
    T, M = episode.support_x.shape[1], episode.query_x.shape[1]
    with torch.no_grad():
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            state = learner.observe(learner.init_state(1), episode.support_x, episode.support_y)
        support = counter.get_total_flops() + learner.scan_flops(T)
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            learner.predict(state, episode.query_x)
    return support, counter.get_total_flops() + learner.read_flops(M)


def size_of(learner: Learner, family: Family) -> Size:
    """Count a learner on one episode of a family."""
    episode = family.episodes("meta_test", [0])
    T, M = episode.support_x.shape[1], episode.query_x.shape[1]
    support, query = count_flops(learner, episode)
    total, core, active = count_parameters(learner)
    return Size(total, core, active, learner.state_floats(T), support // T, query // M)


def built(config: ExperimentConfig) -> tuple[Learner, Family]:
    """A fresh learner of an experiment, and its task family."""
    family = build_family(config.task)
    return build_learner(config.learner, family.spec), family


def cost_of(config: ExperimentConfig) -> Cost:
    """Build the learner and count one episode of the experiment's size."""
    learner, family = built(config)
    size, episode = size_of(learner, family), family.episodes("meta_test", [0])
    T, M = episode.support_x.shape[1], episode.query_x.shape[1]
    episodes = -(-config.train.batch // (config.resources.workers * config.train.accumulate))
    return Cost(
        **dataclasses.asdict(size),
        episode_flops=T * size.support_flops + M * size.query_flops,
        train_bytes=4 * 4 * size.parameters + episodes * _activation_bytes(learner, family),
    )


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most memory that a call holds at once, beyond what was held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        watched.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    return max(itertools.accumulate(event["args"]["Bytes"] for event in changes), default=0)


def bytes_of(tensors: object) -> int:
    """Memory that a pytree of tensors holds: all of each storage, once."""
    leaves = [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
    storages = {leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes() for leaf in leaves}
    return sum(storages.values())


def _batch(shape: Sequence[int]) -> int:
    return math.prod(shape[:-2])


def _activation_bytes(learner: Learner, family: Family) -> int:
    """Bytes that one episode's forward pass leaves in memory for the backward pass."""
    episode = family.episodes("meta_train", [0])
    with _Allocations() as made:
        output = learner(episode)
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*learner.parameters(), *learner.buffers())}
    kept = sum(size for pointer, size in made.alive().items() if pointer not in weights)
    del output
    return kept


class _Allocations(TorchDispatchMode):
    """Keeps book of the memory that operations allocate, those inside gradients of gradients included."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.made[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def alive(self) -> dict[int, int]:
        """Sizes in bytes of what has not been given back, by address."""
        return {pointer: size for pointer, (reference, size) in self.made.items() if not reference.expired()}
