"""A linear map trained by gradient steps: online in the order of the stream, or jointly on all of it.

Shapes: B episodes, T support examples, M queries, V label codes or values, F numbers of an example.
"""

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mambacl.learners.cache import append, cached, entries
from mambacl.learners.features import FeatureLearner, or_one
from mambacl.learners.gradient.configs import JointSgdConfig, OnlineSgdConfig
from mambacl.learners.gradient.inner import Fast, gradient
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec

MOMENTUM = 0.9


class _Linear(FeatureLearner):
    """A linear map that starts at zero, and its step size where the inputs' mean square is 1; the bias always has it."""

    def __init__(self, config: OnlineSgdConfig | JointSgdConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.rate = config.learning_rate / self.size

    def zeros(self, batch_size: int) -> Fast:
        return {
            "weight": self.like.new_zeros(batch_size, self.size, self.spec.size, dtype=self.dtype),
            "bias": self.like.new_zeros(batch_size, 1, self.spec.size, dtype=self.dtype),
        }


def linear(fast: Fast, x_BTF: Tensor) -> Tensor:
    """Predictions (B, T, V) with each episode's own map."""
    return x_BTF @ fast["weight"] + fast["bias"]


class OnlineSgd(_Linear):
    """One step an example; the state is the map, and what the mean of |x|^2 over the examples so far needs: weights take steps
    of learning_rate over it. So the scale of the inputs changes no prediction."""

    config: OnlineSgdConfig

    def init_state(self, batch_size: int) -> State:
        fast = self.zeros(batch_size)
        return fast | {"squares": fast["bias"].new_zeros(batch_size), "count": fast["bias"].new_zeros(batch_size)}

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        fast = {"weight": state["weight"], "bias": state["bias"]}
        squares_B, count_B = state["squares"], state["count"]
        for t in range(x.shape[1]):
            step = gradient(linear, fast, x[:, t : t + 1], y[:, t : t + 1], self.spec)
            squares_B, count_B = squares_B + x[:, t].square().sum(1), count_B + 1
            rate_B11 = (self.config.learning_rate / or_one(squares_B / count_B))[:, None, None]
            fast = {
                "weight": fast["weight"] - rate_B11 * step["weight"],
                "bias": fast["bias"] - self.rate * step["bias"],
            }
        return fast | {"squares": squares_B, "count": count_B}

    def answer(self, state: State, x: Tensor) -> Tensor:
        return linear(state, x).to(self.like.dtype)

    def state_floats(self, examples: int) -> int:
        return (self.size + 1) * self.spec.size + 2


class JointSgd(_Linear):
    """Keeps all examples, and trains a map on them whenever it is asked, all divided by their root mean square: so their scale
    changes no prediction."""

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
            "x": append(state["x"], x.to(self.like.dtype).unsqueeze(1))[0],
            "y": append(state["y"], targets.unsqueeze(1))[0],
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        x_BTF, y = entries(state["x"])[:, 0].to(self.dtype), entries(state["y"])[:, 0]
        y = y.squeeze(-1) if self.spec.output == "classification" else y.to(self.dtype)
        scale_B11 = or_one(x_BTF.square().mean((1, 2))).sqrt()[:, None, None]
        x_BTF, x = x_BTF / scale_B11, x / scale_B11
        fast = self.zeros(len(x_BTF))
        velocity = tree_map(torch.zeros_like, fast)
        for _ in range(self.steps if x_BTF.shape[1] else 0):
            step = gradient(linear, fast, x_BTF, y, self.spec)
            velocity = tree_map(lambda before, change: MOMENTUM * before + change, velocity, step)
            fast = tree_map(lambda weight, change: weight - self.rate * change, fast, velocity)
        return linear(fast, x).to(self.like.dtype)

    def state_floats(self, examples: int) -> int:
        return examples * (self.size + (0 if self.spec.output == "classification" else self.spec.size))
