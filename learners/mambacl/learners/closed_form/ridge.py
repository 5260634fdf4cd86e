"""Ridge regression, on raw numbers or on random features.

The state are sums over the stream, G = sum x x' and C = sum x y', and an answer solves for the weights:

    (G + lambda I) W = C        lambda = penalty * trace(G) / T = penalty * mean of |x|^2 over the T examples so far

So lambda grows with the square of the inputs' scale, on which predictions do not depend, nor do they on the order of the stream.
Sums and weights are float64: G has the square of the inputs' condition, which float32 cannot hold.
Shapes: B episodes, T support examples, M queries, V label codes or values, F features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.closed_form.configs import RandomRidgeConfig, RidgeConfig
from mambacl.learners.closed_form.solve import solve
from mambacl.learners.features import FeatureLearner, or_one
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class Ridge(FeatureLearner):
    """Predictions are x W; for label codes the targets are one-hot, and codes that the stream has not shown have -inf."""

    config: RidgeConfig | RandomRidgeConfig

    def init_state(self, batch_size: int) -> State:
        return {
            "gram": self.like.new_zeros(batch_size, self.size, self.size, dtype=self.dtype),
            "products": self.like.new_zeros(batch_size, self.size, self.spec.size, dtype=self.dtype),
            "count": self.like.new_zeros(batch_size, dtype=self.dtype),
            "seen": torch.zeros(batch_size, self.spec.size, dtype=torch.bool, device=self.like.device),
        }

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        x_BFT, y_BTV = x.transpose(1, 2), self.targets(y)
        return {
            "gram": torch.baddbmm(state["gram"], x_BFT, x),
            "products": torch.baddbmm(state["products"], x_BFT, y_BTV),
            "count": state["count"] + x.shape[1],
            "seen": state["seen"] | (y_BTV != 0).any(1),
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        length_B = state["gram"].diagonal(dim1=1, dim2=2).sum(1) / state["count"].clamp(min=1)
        weights_BFV = solve(state["gram"], self.config.penalty * or_one(length_B), state["products"])
        return self.seen_only(x @ weights_BFV, state["seen"])

    def state_floats(self, examples: int) -> int:
        return self.size * (self.size + self.spec.size) + 1


class RandomRidge(Ridge):
    """Ridge regression on relu(R x), R normal with variance 1 / F, the same in every process."""

    def __init__(self, config: RandomRidgeConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        numbers = torch.randn(config.features, self.size, generator=torch.Generator().manual_seed(0))
        self.directions: Tensor
        self.register_buffer("directions", numbers * self.size**-0.5)
        self.size = config.features

    def features(self, x: Tensor) -> Tensor:
        return F.relu(super().features(x) @ self.directions.T.to(self.dtype))
