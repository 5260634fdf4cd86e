"""Prototypical network (Snell et al., 2017, "Prototypical Networks for Few-shot Learning")."""

import math

import torch
from torch import Tensor, nn

from mambacl.learners.closed_form.configs import PrototypesConfig
from mambacl.learners.closed_form.nearest_mean import NearestMean
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class Prototypes(NearestMean):
    """Logits are -s |z - mean|^2 with a learned s: features have length sqrt(F), and s starts at 1 / sqrt(F)."""

    def __init__(self, config: PrototypesConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.log_scale = nn.Parameter(torch.full((), -0.5 * math.log(self.size)))

    def answer(self, state: State, x: Tensor) -> Tensor:
        return self.seen_only(-self.log_scale.exp() * self.squares(state, x), state["count"] > 0)
