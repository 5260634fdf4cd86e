"""Short causal convolution over the stream, one filter a channel.

It lets a token see its neighbours: a label token finds the example it belongs to. Shapes: W filter width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.fused import short_conv
from mambacl.learners.mixers.convolved_config import ConvolvedConfig


class ShortConv(nn.Module):
    """Depthwise causal convolution of width W.

    The state is the last W - 1 inputs (B, W - 1, channels). Fresh filters are averages: a label token then holds its example,
    which stands one place before it, in the same directions as a query holds its own, and the two can be compared.
    """

    def __init__(self, channels: int, config: ConvolvedConfig) -> None:
        super().__init__()
        width, self.alone = config.short_conv, config.query_conv == "query"
        self.weight = nn.Parameter(torch.full((width, channels), 1 / width))
        self.bias = nn.Parameter(torch.zeros(channels))

    def init_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, len(self.weight) - 1, self.weight.shape[1])

    def stream(self, x: Tensor, state: Tensor, silu: bool = False) -> tuple[Tensor, Tensor]:
        """x (B, L, channels) and the state before it, to outputs of the same shape and the state after it.

        silu: whether the outputs' SiLU is wanted instead of the outputs.
        """
        return short_conv(x, state, self.weight, self.bias, silu)

    def read(self, x: Tensor, state: Tensor, silu: bool = False) -> Tensor:
        """x (B, M, channels): each as the one next input after the state, or after itself alone."""
        past = self.weight[:-1].sum(0) * x if self.alone else (self.weight[:-1] * state).sum(1, keepdim=True)
        y = self.bias + past + self.weight[-1] * x
        return F.silu(y) if silu else y

    @property
    def state_floats(self) -> int:
        return (len(self.weight) - 1) * self.weight.shape[1]
