"""Optimiser, learning-rate schedule, and the optimiser's state as plain tensors."""

import math

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from mambacl.platform.config import TrainConfig


def build_optimizer(learner: nn.Module, config: TrainConfig) -> Optimizer:
    """Adam or AdamW; vectors (norms, biases) and parameters marked `no_weight_decay` are not decayed."""
    decayed, free = [], []
    for parameter in learner.parameters():
        plain = parameter.ndim < 2 or getattr(parameter, "no_weight_decay", False)
        (free if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind(groups, lr=config.learning_rate, fused=True)


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
