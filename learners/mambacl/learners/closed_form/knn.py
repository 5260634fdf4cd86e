"""Nearest neighbours: the whole stream is kept, so the state grows.

Shapes: B episodes, T support examples, M queries, R examples kept, V label codes or values, F features.
"""

import torch
from torch import Tensor

from mambacl.learners.cache import append, cached, entries
from mambacl.learners.closed_form.configs import KnnConfig
from mambacl.learners.features import FeatureLearner, or_one
from mambacl.learners.learner import State

TIE = 1e-3
"""By how much more a neighbour's vote counts than that of the farthest: the nearest decides between codes with as many votes."""


class Knn(FeatureLearner):
    """Logits are logarithms of the shares of votes; for values, predictions are weighted means."""

    config: KnnConfig

    def init_state(self, batch_size: int) -> State:
        return {
            "x": cached(self.like.new_zeros(batch_size, 1, 0, self.size)),
            "y": cached(self.like.new_zeros(batch_size, 1, 0, self.spec.size)),
        }

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        return {
            name: append(state[name], new.to(self.like.dtype).unsqueeze(1))[0]
            for name, new in (("x", x), ("y", self.targets(y)))
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        x_BRF, y_BRV = (entries(state[name])[:, 0].to(self.dtype) for name in ("x", "y"))
        squares_BMR = torch.cdist(x, x_BRF).square()
        if self.config.bandwidth is not None:
            length_B11 = or_one(x_BRF.square().sum(2).mean(1))[:, None, None]
            votes = torch.softmax(-squares_BMR / (2 * self.config.bandwidth**2 * length_B11), -1)
        else:
            k = min(self.config.neighbours, x_BRF.shape[1])
            nearest = squares_BMR.topk(k, largest=False).indices
            vote_k = 1 + TIE * torch.linspace(1, 0, k, dtype=self.dtype, device=self.like.device)
            votes = torch.zeros_like(squares_BMR).scatter(-1, nearest, (vote_k / vote_k.sum()).expand(nearest.shape))
        shares = (votes @ y_BRV).to(self.like.dtype)
        return shares.log() if self.spec.output == "classification" else shares

    def state_floats(self, examples: int) -> int:
        return examples * (self.size + self.spec.size)
