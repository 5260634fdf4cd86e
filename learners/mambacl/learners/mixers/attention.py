"""Softmax attention behind a short convolution, as the mixers of fixed state have one. Shapes: B episodes, M queries, L tokens,
D width.
"""

from torch import Tensor

from mambacl.learners.learner import State
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.mixer import Trace, start_alike
from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.learners.mixers.softmax import SoftmaxMixer


class AttentionMixer(SoftmaxMixer):
    """Knows no positions: what stands beside a token is in the token itself, after the convolution."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        D = config.width
        self.conv = ShortConv(D, config) if config.short_conv else None
        start_alike(self.in_proj.weight[:D], self.in_proj.weight[D : 2 * D])
        start_alike(self.in_proj.bias[:D], self.in_proj.bias[D : 2 * D])

    def init_state(self, batch_size: int) -> State:
        state = super().init_state(batch_size)
        return state | ({"conv": self.conv.init_state(batch_size)} if self.conv else {})

    def state_floats(self, tokens: int) -> int:
        return super().state_floats(tokens) + (self.conv.state_floats if self.conv else 0)

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        if not self.conv:
            return super().stream(x_BLD, state, outputs)
        x_BLD, tail = self.conv.stream(x_BLD, state["conv"])
        y, after, trace = super().stream(x_BLD, state, outputs)
        return y, after | {"conv": tail}, trace

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        return super().read(self.conv.read(x_BMD, state["conv"]) if self.conv else x_BMD, state)
