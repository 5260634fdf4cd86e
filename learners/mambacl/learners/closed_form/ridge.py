"""Ridge regression by recursive least squares, on raw numbers or on random features.

P is the inverse of lambda I + sum x x', W the weights; a chunk X (T, F) with targets Y changes them by Woodbury's identity:

    P <- P - P X' (I + X P X')^-1 X P          W <- W + P X' (Y - X W)
Shapes: B episodes, T support examples, M queries, V label codes or values, F features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.closed_form.configs import RandomRidgeConfig, RidgeConfig
from mambacl.learners.features import FeatureLearner
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class Ridge(FeatureLearner):
    """Predictions are x W; for label codes the targets are one-hot, and codes that the stream has not shown have -inf."""

    config: RidgeConfig | RandomRidgeConfig

    def init_state(self, batch_size: int) -> State:
        inverse = torch.eye(self.size, dtype=self.like.dtype, device=self.like.device) / (
            self.config.penalty * self.size
        )
        return {
            "P": inverse.repeat(batch_size, 1, 1),
            "W": self.like.new_zeros(batch_size, self.size, self.spec.size),
            "seen": torch.zeros(batch_size, self.spec.size, dtype=torch.bool, device=self.like.device),
        }

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        y_BTV = self.targets(y)
        projected_BTF = x @ state["P"]
        inner = projected_BTF @ x.transpose(1, 2)
        inner = inner + torch.eye(inner.shape[1], dtype=inner.dtype, device=inner.device)
        gain_BTF = torch.cholesky_solve(projected_BTF, torch.linalg.cholesky(inner))
        return {
            "P": state["P"] - projected_BTF.transpose(1, 2) @ gain_BTF,
            "W": state["W"] + gain_BTF.transpose(1, 2) @ (y_BTV - x @ state["W"]),
            "seen": state["seen"] | (y_BTV != 0).any(1),
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        return self.seen_only(x @ state["W"], state["seen"])

    def state_floats(self, examples: int) -> int:
        return self.size * (self.size + self.spec.size)


class RandomRidge(Ridge):
    """Ridge regression on relu(R x), R normal with variance 1 / F, the same in every process."""

    def __init__(self, config: RandomRidgeConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        numbers = torch.randn(config.features, self.size, generator=torch.Generator().manual_seed(0))
        self.directions: Tensor
        self.register_buffer("directions", numbers * self.size**-0.5)
        self.size = config.features

    def features(self, x: Tensor) -> Tensor:
        return F.relu(super().features(x) @ self.directions.T)
