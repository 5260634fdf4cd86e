"""Fresh values for the rates at which selective mixers forget (Gu and Dao, 2023; Dao and Gu, 2024)."""

import math

import torch
from torch import Tensor, nn

from mambacl.learners.undecayed import undecayed


@torch.no_grad()
def start_steps(bias: Tensor, low: float = 1e-3, high: float = 0.1) -> None:
    """Give a bias values whose softplus is log-uniform between the two: channels forget at rates spread over decades."""
    step = torch.exp(torch.empty_like(bias).uniform_(math.log(low), math.log(high)))
    bias.copy_(step + torch.log(-torch.expm1(-step)))


def log_rates(rates: Tensor) -> nn.Parameter:
    """A parameter that holds the logarithm of positive rates; weight decay would pull the rates toward 1."""
    return undecayed(rates.log())
