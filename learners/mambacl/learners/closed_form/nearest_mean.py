"""Nearest class mean: the sums and counts of each label code, and the nearest mean for a query.

Shapes: B episodes, T support examples, M queries, V label codes, F features.
"""

from torch import Tensor

from mambacl.learners.base_config import EncodedConfig, RawConfig
from mambacl.learners.features import FeatureLearner
from mambacl.learners.learner import State
from mambacl.tasks.episode import Spec


class NearestMean(FeatureLearner):
    """Logits are -|x - mean|^2 / 2; codes that the stream has not shown have -inf."""

    def __init__(self, config: RawConfig | EncodedConfig, spec: Spec) -> None:
        super().__init__(config, spec, outputs=("classification",))

    def init_state(self, batch_size: int) -> State:
        zeros = self.like.new_zeros(batch_size, self.spec.size, self.size, dtype=self.dtype)
        return {"sum": zeros, "count": zeros[..., 0].clone()}

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        code_BTV = self.targets(y)
        return {
            "sum": state["sum"] + code_BTV.transpose(1, 2) @ x,
            "count": state["count"] + code_BTV.sum(1),
        }

    def answer(self, state: State, x: Tensor) -> Tensor:
        return self.seen_only(-0.5 * self.squares(state, x), state["count"] > 0)

    def squares(self, state: State, x: Tensor) -> Tensor:
        """|x - mean|^2 of features (B, M, F) and label codes, (B, M, V)."""
        mean_BVF = state["sum"] / state["count"].clamp(min=1).unsqueeze(-1)
        products = x @ mean_BVF.transpose(1, 2)
        return x.square().sum(-1, keepdim=True) + mean_BVF.square().sum(-1).unsqueeze(1) - 2 * products

    def state_floats(self, examples: int) -> int:
        return self.spec.size * (self.size + 1)
