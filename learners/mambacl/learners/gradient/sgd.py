"""A linear map trained by gradient steps: online in the order of the stream, or jointly on all of it.

Shapes: B episodes, T support examples, M queries, V label codes or values, F numbers of an example.
"""

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mambacl.learners.cache import append, cached, entries
from mambacl.learners.features import FeatureLearner
from mambacl.learners.gradient.configs import JointSgdConfig, OnlineSgdConfig
from mambacl.learners.gradient.inner import Fast, follow, gradient
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec

MOMENTUM = 0.9


class _Linear(FeatureLearner):
    """A linear map and the step size for it: divided by F, so that it suits examples of any size."""

    def __init__(self, config: OnlineSgdConfig | JointSgdConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.rate = config.learning_rate / self.size

    def zeros(self, batch_size: int) -> Fast:
        return {
            "weight": self.like.new_zeros(batch_size, self.size, self.spec.size),
            "bias": self.like.new_zeros(batch_size, 1, self.spec.size),
        }


def linear(fast: Fast, x_BTF: Tensor) -> Tensor:
    """Predictions (B, T, V) with each episode's own map."""
    return x_BTF @ fast["weight"] + fast["bias"]


class OnlineSgd(_Linear):
    """One step an example; the state is the map."""

    def init_state(self, batch_size: int) -> State:
        return self.zeros(batch_size)

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        return follow(linear, state, x, y, self.spec, self.rate)

    def answer(self, state: State, x: Tensor) -> Tensor:
        return linear(state, x)

    def state_floats(self, examples: int) -> int:
        return (self.size + 1) * self.spec.size


class JointSgd(_Linear):
    """Keeps all examples, and trains a map on them whenever it is asked."""

    def __init__(self, config: JointSgdConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.steps = config.steps

    def init_state(self, batch_size: int) -> State:
        like = self.like if self.spec.output != "classification" else torch.tensor(0, device=self.like.device)
        targets = 1 if self.spec.output == "classification" else self.spec.size
        return {
            "x": cached(self.like.new_zeros(batch_size, 1, 0, self.size)),
            "y": cached(like.new_zeros(batch_size, 1, 0, targets)),
        }

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        targets = y.unsqueeze(-1) if y.ndim == 2 else y
        return {
            "x": append(state["x"], x.unsqueeze(1))[0],
            "y": append(state["y"], targets.unsqueeze(1))[0],
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        x_BTF, y = entries(state["x"])[:, 0], entries(state["y"])[:, 0]
        y = y.squeeze(-1) if self.spec.output == "classification" else y.to(x_BTF.dtype)
        fast = self.zeros(len(x_BTF))
        velocity = tree_map(torch.zeros_like, fast)
        for _ in range(self.steps if x_BTF.shape[1] else 0):
            step = gradient(linear, fast, x_BTF, y, self.spec)
            velocity = tree_map(lambda before, change: MOMENTUM * before + change, velocity, step)
            fast = tree_map(lambda weight, change: weight - self.rate * change, fast, velocity)
        return linear(fast, x)

    def state_floats(self, examples: int) -> int:
        return examples * (self.size + (0 if self.spec.output == "classification" else self.spec.size))
