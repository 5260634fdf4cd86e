"""Streaming linear discriminant analysis (Hayes and Kanan, 2020, "Lifelong Machine Learning with Deep Streaming LDA").

Shapes: B episodes, T support examples, M queries, V label codes, F features.
"""

import torch
from torch import Tensor

from mambacl.learners.closed_form.configs import SldaConfig
from mambacl.learners.closed_form.nearest_mean import NearestMean
from mambacl.learners.closed_form.solve import solve
from mambacl.learners.features import or_one
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec

ROUNDING = 1e-12
"""Share of the inputs' mean square below which a variance in float64 may be nothing but rounding."""


class Slda(NearestMean):
    """Logits are mean' W x - mean' W mean / 2 with W the inverse of the covariance within classes, shrunk to a multiple of I, and
    with means and queries from the mean of the stream: else logits of inputs far from 0 would be large and nearly equal."""

    config: SldaConfig

    def __init__(self, config: SldaConfig, spec: Spec) -> None:
        super().__init__(config, spec)

    def init_state(self, batch_size: int) -> State:
        products = self.like.new_zeros(batch_size, self.size, self.size, dtype=self.dtype)
        return super().init_state(batch_size) | {"products": products}

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        return super().absorb(state, x, y) | {"products": torch.baddbmm(state["products"], x.transpose(1, 2), x)}

    def answer(self, state: State, x: Tensor) -> Tensor:
        share, n_B = self.config.shrinkage, state["count"].sum(1).clamp(min=1)
        mean_BVF = state["sum"] / state["count"].clamp(min=1).unsqueeze(-1)
        covariances = (
            (products - mean.T @ total) / n
            for products, mean, total, n in zip(state["products"], mean_BVF, state["sum"], n_B, strict=True)
        )
        square_B = state["products"].diagonal(dim1=1, dim2=2).mean(1) / n_B
        spread_B = square_B - (mean_BVF * state["sum"]).sum(1).mean(1) / n_B
        # One example of each class has no spread: any multiple of I then gives the nearest mean.
        scale_B = or_one(torch.where(spread_B > ROUNDING * square_B, spread_B, square_B))
        centre_B1F = state["sum"].sum(1, keepdim=True) / n_B[:, None, None]
        centred_BVF = mean_BVF - centre_B1F
        weights_BFV = solve(((1 - share) * c for c in covariances), share * scale_B, centred_BVF.transpose(1, 2))
        bias_BV = -0.5 * (weights_BFV.transpose(1, 2) * centred_BVF).sum(-1)
        return self.seen_only((x - centre_B1F) @ weights_BFV + bias_BV.unsqueeze(1), state["count"] > 0)

    def state_floats(self, examples: int) -> int:
        return super().state_floats(examples) + self.size**2
