"""ALPaCA (Harrison et al., 2018, "Meta-Learning Priors for Efficient Online Bayesian Regression").

    Lambda = L L' + sum phi phi'        Q = L L' K_0 + sum phi y'        prediction phi' Lambda^-1 Q
Shapes: B episodes, T support examples, M queries, V values, F features.
"""

import torch
from torch import Tensor, nn

from mambacl.learners.closed_form.configs import AlpacaConfig
from mambacl.learners.features import FeatureLearner
from mambacl.learners.learner import State
from mambacl.learners.undecayed import undecayed
from mambacl.tasks.episode import Spec


class Alpaca(FeatureLearner):
    """Bayesian linear regression on meta-trained features; the prior's mean and precision are meta-trained, too."""

    def __init__(self, config: AlpacaConfig, spec: Spec) -> None:
        super().__init__(config, spec, outputs=("regression", "angle"))
        self.mean = nn.Parameter(torch.zeros(self.size, spec.size))
        self.factor = undecayed(config.precision**0.5 * torch.eye(self.size))

    def init_state(self, batch_size: int) -> State:
        factor = self.factor.tril()
        precision = factor @ factor.T
        return {
            "precision": precision.repeat(batch_size, 1, 1),
            "product": (precision @ self.mean).repeat(batch_size, 1, 1),
        }

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        phi_BFT = x.transpose(1, 2)
        return {
            "precision": state["precision"] + phi_BFT @ phi_BFT.transpose(1, 2),
            "product": state["product"] + phi_BFT @ self.targets(y),
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        weights_BFV = torch.cholesky_solve(state["product"], torch.linalg.cholesky(state["precision"]))
        return x @ weights_BFV

    def state_floats(self, examples: int) -> int:
        return self.size * (self.size + self.spec.size)
