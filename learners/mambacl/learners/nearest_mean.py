"""Nearest class mean: the sums and counts of each label code, and the nearest mean for a query.

Shapes: B episodes, T support examples, M queries, V label codes, F numbers of one example.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.encoders.encoders import as_float
from mambacl.learners.learner import Learner, Output, State
from mambacl.learners.nearest_mean_config import NearestMeanConfig
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Spec


class NearestMean(Learner):
    """Logits are -||x - mean||^2 / 2; codes that the stream has not shown have -inf."""

    def __init__(self, config: NearestMeanConfig, spec: Spec) -> None:
        if spec.output != "classification":
            raise ConfigError(f"learner.name: 'nearest_mean' needs classification, the task is {spec.output}")
        super().__init__(spec)
        self.config = config
        self.size = int(torch.Size(spec.shape).numel())
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()), persistent=False)  # carries device and dtype

    def init_state(self, batch_size: int) -> State:
        return {
            "sum": self.like.new_zeros(batch_size, self.spec.size, self.size),
            "count": self.like.new_zeros(batch_size, self.spec.size),
        }

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        x, y = self.chunk(x, y)
        code_BTV = F.one_hot(y, self.spec.size).to(self.like.dtype)
        x_BTF = as_float(x, self.like.dtype).flatten(2)
        return {"sum": state["sum"] + code_BTV.transpose(1, 2) @ x_BTF, "count": state["count"] + code_BTV.sum(1)}

    def predict(self, state: State, x: Tensor) -> Output:
        mean_BVF = state["sum"] / state["count"].clamp(min=1).unsqueeze(-1)
        x_BMF = as_float(x, self.like.dtype).flatten(2)
        logits = x_BMF @ mean_BVF.transpose(1, 2) - 0.5 * mean_BVF.square().sum(-1).unsqueeze(1)
        logits = logits - 0.5 * x_BMF.square().sum(-1, keepdim=True)
        return Output(logits.masked_fill((state["count"] == 0).unsqueeze(1), -torch.inf))

    def state_floats(self, examples: int) -> int:
        return self.spec.size * (self.size + 1)
