"""Fresh values for the rates at which selective mixers forget (Gu and Dao, 2023; Dao and Gu, 2024)."""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def start_steps(bias: Tensor) -> None:
    """Give a bias values whose softplus is log-uniform in [1e-3, 0.1]: channels forget at rates spread over two decades."""
    step = torch.exp(torch.empty_like(bias).uniform_(math.log(1e-3), math.log(0.1)))
    bias.copy_(step + torch.log(-torch.expm1(-step)))


def log_rates(rates: Tensor) -> nn.Parameter:
    """A parameter that holds the logarithm of positive rates; weight decay would pull the rates toward 1."""
    parameter = nn.Parameter(rates.log())
    parameter.no_weight_decay = True  # type: ignore[attr-defined]
    return parameter
