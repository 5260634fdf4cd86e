"""OML (Javed and White, 2019, "Meta-Learning Representations for Continual Learning"), as in Lee et al., 2023.

Shapes: B episodes, T support examples, M queries, V label codes or values, F features, U units of a layer.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.features import FeatureLearner
from mambacl.learners.gradient.configs import OmlConfig
from mambacl.learners.gradient.inner import Fast, follow
from mambacl.learners.learner import State, bounded
from mambacl.tasks.episode import Spec


class Oml(FeatureLearner):
    """An encoder that is meta-trained, and a fast network on it that takes one gradient step an example. The start of the fast
    network and the step size are meta-trained, too, through all the steps (second order)."""

    def __init__(self, config: OmlConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        sizes = [self.size, *[config.hidden] * (config.fast_layers - 1), spec.size]
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(a, b)) for a, b in itertools.pairwise(sizes))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes[1:-1])
        self.log_rate = nn.Parameter(torch.tensor(math.log(config.learning_rate)))
        for weight in self.weights:
            nn.init.xavier_normal_(weight)

    def init_state(self, batch_size: int) -> State:
        start = {f"weight{i}": weight for i, weight in enumerate(self.weights)}
        start |= {f"bias{i}": bias for i, bias in enumerate(self.biases)}
        return {name: value.expand(batch_size, *value.shape) for name, value in start.items()}

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        return follow(self.predictions, state, x, y, self.spec, self.log_rate.exp())

    def answer(self, state: State, x: Tensor) -> Tensor:
        return self.predictions(state, x)

    def state_floats(self, examples: int) -> int:
        return sum(p.numel() for p in [*self.weights, *self.biases])

    def predictions(self, fast: Fast, z_BTF: Tensor) -> Tensor:
        """The fast network with each episode's own weights; the last layer has no bias."""
        for i in range(len(self.biases)):
            z_BTF = F.relu(torch.baddbmm(fast[f"bias{i}"].unsqueeze(1), z_BTF, fast[f"weight{i}"]))
        return bounded(z_BTF @ fast[f"weight{len(self.biases)}"], self.spec)
