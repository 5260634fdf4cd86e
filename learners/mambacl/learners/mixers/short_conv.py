"""Short causal convolution over the stream, one filter a channel.

It lets a token see its neighbours: a label token finds the example it belongs to. Shapes: W filter width.
"""

import torch
from torch import Tensor, nn


class ShortConv(nn.Module):
    """Depthwise causal convolution of width W, as W shifted multiply-adds (faster than Conv1d on CPUs).

    The state is the last W - 1 inputs (B, W - 1, channels). Fresh filters are averages: a label token then holds its example,
    which stands one place before it, in the same directions as a query holds its own, and the two can be compared.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width, channels), 1 / width))
        self.bias = nn.Parameter(torch.zeros(channels))

    def init_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, len(self.weight) - 1, self.weight.shape[1])

    def stream(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, L, channels) and the state before it, to outputs of the same shape and the state after it."""
        window = torch.cat([state, x], dim=1)
        length = x.shape[1]
        y = self.bias + self.weight[0] * window[:, :length]
        for shift in range(1, len(self.weight)):
            y = torch.addcmul(y, self.weight[shift], window[:, shift : shift + length])
        return y, window[:, length:]

    def read(self, x: Tensor, state: Tensor) -> Tensor:
        """x (B, M, channels): each as the one next input after the state."""
        past = (self.weight[:-1] * state).sum(1, keepdim=True)
        return self.bias + past + self.weight[-1] * x

    @property
    def state_floats(self) -> int:
        return (len(self.weight) - 1) * self.weight.shape[1]
