"""Optimiser, learning-rate schedule, and the optimiser's state as plain tensors."""

import math

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.platform.config import TrainConfig

UNDECAYED = (nn.Embedding, nn.Conv2d, ShortConv)
"""Modules without matrices that tokens are multiplied with."""


def build_optimizer(learner: nn.Module, config: TrainConfig) -> Optimizer:
    """Adam or AdamW. Weight decay falls on matrices that tokens are multiplied with, and on nothing else."""
    decayed, free = [], []
    for module in learner.modules():
        for name, parameter in module.named_parameters(recurse=False):
            (decayed if _multiplies(module, name, parameter) else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind(groups, lr=config.learning_rate, fused=True)


def _multiplies(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    marked = getattr(parameter, "no_weight_decay", False)
    return parameter.ndim > 1 and not marked and not isinstance(module, UNDECAYED) and not name.endswith("bias")


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    after = max(0, step - config.warmup)
    if config.schedule == "cosine":
        share = after / max(1, config.steps - config.warmup)
        return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))
    if config.schedule == "step":
        return config.learning_rate * warm * 0.5 ** (after // config.halve_every)
    return config.learning_rate * warm


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Use this learning rate in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_tensors(learner: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as {"parameter name/entry": tensor}."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in learner.named_parameters()}
    return {
        f"{names[parameter]}/{entry}": value.contiguous()
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def load_state_tensors(learner: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `state_tensors` gave."""
    parameters = dict(learner.named_parameters())
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        parameter = parameters[name]
        # Adam keeps its step counts on the CPU, unless fused on the parameter's device.
        optimizer.state[parameter][entry] = value.to(
            parameter.device, torch.float32 if entry == "step" else parameter.dtype
        )
