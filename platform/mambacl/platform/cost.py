"""What a learner costs: parameters, state, arithmetic and memory, counted rather than timed."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mambacl.learners.learner import Learner
from mambacl.learners.mixture import Mixture
from mambacl.learners.registry import build as build_learner
from mambacl.learners.sequence import SequenceLearner
from mambacl.platform.config import ExperimentConfig
from mambacl.tasks.family import Family
from mambacl.tasks.registry import build as build_family

FORMULAS = {
    torch.ops.aten.linalg_cholesky_ex: lambda a, **_: _batch(a) * a[-1] ** 3 // 3,
    torch.ops.aten.cholesky_solve: lambda b, a, *_, **__: 2 * _batch(b) * a[-1] ** 2 * b[-1],
    torch.ops.aten.linalg_solve_triangular: lambda a, b, *_, **__: _batch(b) * a[-1] * b[-1] * b[-2],
}
"""Operations on matrices that torch's counter does not know, from the shapes of their arguments."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Counts for one episode of the experiment."""

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
    episode_flops: int
    """Floating-point operations of the whole episode, forward."""
    train_bytes: int
    """Memory of weights, gradients, optimiser and kept activations in a training step."""


def count_parameters(learner: Learner) -> tuple[int, int, int]:
    """All parameters, those of the blocks, and those that take part in one token."""
    core = learner.blocks.parameters() if isinstance(learner, SequenceLearner) else ()
    total = sum(p.numel() for p in learner.parameters())
    idle = sum(module.idle_parameters for module in learner.modules() if isinstance(module, Mixture))
    return total, sum(p.numel() for p in core), total - idle


def cost_of(config: ExperimentConfig) -> Cost:
    """Build the learner and count one episode of the experiment's size."""
    family = build_family(config.task)
    learner = build_learner(config.learner, family.spec)
    examples = config.task.examples
    episode = family.episodes("meta_train", [0])
    queries = episode.query_x.shape[1]
    with torch.no_grad():
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            state = learner.observe(learner.init_state(1), episode.support_x, episode.support_y)
        support = counter.get_total_flops() + learner.scan_flops(examples)
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            learner.predict(state, episode.query_x)
        query = counter.get_total_flops() + learner.read_flops(queries)
    parameters, core, active = count_parameters(learner)
    kept = _activation_bytes(learner, family) * -(
        -config.train.batch // (config.resources.workers * config.train.accumulate)
    )
    return Cost(
        parameters=parameters,
        core_parameters=core,
        active_parameters=active,
        state_floats=learner.state_floats(examples),
        support_flops=support // examples,
        query_flops=query // queries,
        episode_flops=support + query,
        train_bytes=4 * 4 * parameters + kept,
    )


def _batch(shape: Sequence[int]) -> int:
    return math.prod(shape[:-2])


def _activation_bytes(learner: Learner, family: Family) -> int:
    """Bytes that autograd keeps for the backward pass of one episode."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = learner(family.episodes("meta_train", [0]))
    weights = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(dict(learner.named_parameters()))}
    del output
    return sum(size for pointer, size in kept.items() if pointer not in weights)
