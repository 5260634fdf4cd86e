"""GeMCL (Banayeeanzade et al., 2021, "Generative vs. Discriminative: Rethinking the Meta-Continual Learning").

Each feature of a class is normal with unknown mean and variance; the variance has an inverse-gamma prior (alpha, beta). After n
examples with mean m: alpha' = alpha + n / 2, beta' = beta + sum (z - m)^2 / 2, and a query follows Student's t distribution
with 2 alpha' degrees of freedom around m, of the squared scale v = beta' / alpha' (1 + 1 / n):

    log p(z) = log Gamma(alpha' + 1/2) - log Gamma(alpha') - log(2 pi alpha' v) / 2 - (alpha' + 1/2) log(1 + (z - m)^2 / (2 alpha' v))
Shapes: B episodes, T support examples, M queries, V label codes, F features.
"""

import math

import torch
from torch import Tensor, nn

from mambacl.learners.closed_form.configs import GemclConfig
from mambacl.learners.features import FeatureLearner
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class Gemcl(FeatureLearner):
    """Logits are the log densities of the query under the classes. `compat` leaves out what depends on alpha' alone, which
    classes of as many examples share, and has log v in place of half of it."""

    config: GemclConfig

    def __init__(self, config: GemclConfig, spec: Spec) -> None:
        super().__init__(config, spec, outputs=("classification",))
        self.log_alpha = nn.Parameter(torch.tensor(config.alpha).log())
        self.log_beta = nn.Parameter(torch.tensor(config.beta).log())

    def init_state(self, batch_size: int) -> State:
        zeros = self.like.new_zeros(batch_size, self.spec.size, self.size)
        return {"sum": zeros, "squares": zeros.clone(), "count": zeros[..., 0].clone()}

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        code_BVT = self.targets(y).transpose(1, 2)
        return {
            "sum": state["sum"] + code_BVT @ x,
            "squares": state["squares"] + code_BVT @ x.square(),
            "count": state["count"] + code_BVT.sum(2),
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        n = state["count"].clamp(min=1).unsqueeze(-1)
        mean_BVF = state["sum"] / n
        alpha = self.log_alpha.exp() + n / 2
        beta_BVF = self.log_beta.exp() + 0.5 * (state["squares"] - n * mean_BVF.square()).clamp(min=0)
        variance = beta_BVF / alpha * (1 + 1 / n)
        squares_BMVF = (x.unsqueeze(2) - mean_BVF.unsqueeze(1)).square()
        distance = (alpha + 0.5).unsqueeze(1) * torch.log1p(squares_BMVF / (2 * alpha * variance).unsqueeze(1))
        height_BVF = -variance.log() if self.config.compat else _height(alpha, variance)
        return self.seen_only((height_BVF.unsqueeze(1) - distance).sum(-1), state["count"] > 0)

    def state_floats(self, examples: int) -> int:
        return self.spec.size * (2 * self.size + 1)


def _height(alpha: Tensor, variance: Tensor) -> Tensor:
    """log density of Student's t at its mean. The part of alpha in float64: a small difference of large numbers."""
    wide = alpha.double()
    shape = torch.lgamma(wide + 0.5) - torch.lgamma(wide) - 0.5 * (2 * math.pi * wide).log()
    return shape.to(variance.dtype) - 0.5 * variance.log()
