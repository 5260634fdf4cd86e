"""Streaming linear discriminant analysis (Hayes and Kanan, 2020, "Lifelong Machine Learning with Deep Streaming LDA").

Shapes: B episodes, T support examples, M queries, V label codes, F features.
"""

import torch
from torch import Tensor

from mambacl.learners.closed_form.configs import SldaConfig
from mambacl.learners.closed_form.nearest_mean import NearestMean
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class Slda(NearestMean):
    """Logits are mean' W x - mean' W mean / 2 with W the inverse of the covariance within classes, shrunk to a multiple of I."""

    config: SldaConfig

    def __init__(self, config: SldaConfig, spec: Spec) -> None:
        super().__init__(config, spec)

    def init_state(self, batch_size: int) -> State:
        return super().init_state(batch_size) | {"products": self.like.new_zeros(batch_size, self.size, self.size)}

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        return super().absorb(state, x, y) | {"products": state["products"] + x.transpose(1, 2) @ x}

    def answer(self, state: State, x: Tensor) -> Tensor:
        count = state["count"].unsqueeze(-1)
        mean_BVF = state["sum"] / count.clamp(min=1)
        between = mean_BVF.transpose(1, 2) @ (count * mean_BVF)
        covariance = (state["products"] - between) / count.sum(1, keepdim=True).clamp(min=1)
        spread = covariance.diagonal(dim1=1, dim2=2).mean(1)
        # One example of each class has no spread: any multiple of I then gives the nearest mean.
        floor = self.config.shrinkage * torch.where(spread > 0, spread, 1.0)
        shrunk = (1 - self.config.shrinkage) * covariance + torch.diag_embed(floor.unsqueeze(1).expand(-1, self.size))
        weights_BFV = torch.cholesky_solve(mean_BVF.transpose(1, 2), torch.linalg.cholesky_ex(shrunk).L)
        bias_BV = -0.5 * (weights_BFV.transpose(1, 2) * mean_BVF).sum(-1)
        return self.seen_only(x @ weights_BFV + bias_BV.unsqueeze(1), state["count"] > 0)

    def state_floats(self, examples: int) -> int:
        return super().state_floats(examples) + self.size**2
