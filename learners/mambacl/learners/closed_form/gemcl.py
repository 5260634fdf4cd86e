"""GeMCL (Banayeeanzade et al., 2021, "Generative vs. Discriminative: Rethinking the Meta-Continual Learning").

Each feature of a class is normal with unknown mean and variance; the variance has an inverse-gamma prior (alpha, beta). After n
examples with mean m: alpha' = alpha + n / 2, beta' = beta + sum (z - m)^2 / 2, and a query follows Student's t distribution.
Shapes: B episodes, T support examples, M queries, V label codes, F features.
"""

import torch
from torch import Tensor, nn

from mambacl.learners.closed_form.configs import GemclConfig
from mambacl.learners.features import FeatureLearner
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class Gemcl(FeatureLearner):
    """Logits are the log densities of the query under the classes."""

    def __init__(self, config: GemclConfig, spec: Spec) -> None:
        super().__init__(config, spec, outputs=("classification",))
        self.log_alpha = nn.Parameter(torch.tensor(config.alpha).log())
        self.log_beta = nn.Parameter(torch.tensor(config.beta).log())
        self.log_variance_weight = 1.0 if config.compat else 0.5

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
        density = -(distance + self.log_variance_weight * variance.log().unsqueeze(1)).sum(-1)
        return self.seen_only(density, state["count"] > 0)

    def state_floats(self, examples: int) -> int:
        return self.spec.size * (2 * self.size + 1)
