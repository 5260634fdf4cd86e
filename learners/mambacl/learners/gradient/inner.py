"""Inner gradient steps, of all episodes at once, differentiable for meta-training.

torch.func takes the gradients: they exist in evaluation, too, where autograd is off. Shapes: B episodes, T examples,
V label codes or values.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from mambacl.tasks.episode import Spec

Fast = dict[str, Tensor]
"""Weights that learn along the stream, (B, ...) each."""


def sum_of_losses(prediction: Tensor, y: Tensor, spec: Spec) -> Tensor:
    """Loss of predictions (B, T, V) of examples with targets y, meaned over T and summed over the episodes, so that the
    gradient with respect to an episode's weights is its own."""
    if spec.output == "classification":
        return F.cross_entropy(prediction.transpose(1, 2), y, reduction="none").mean(1).sum()
    if spec.output == "regression":
        return (prediction - y).square().mean((1, 2)).sum()
    direction = prediction / prediction.norm(dim=-1, keepdim=True).clamp(min=0.1)
    return (1 - (direction * y).sum(-1)).mean(1).sum()


def gradient(predict: Callable[[Fast, Tensor], Tensor], fast: Fast, x: Tensor, y: Tensor, spec: Spec) -> Fast:
    """Gradient of the loss of examples x, y with respect to each episode's weights."""
    return torch.func.grad(lambda weights: sum_of_losses(predict(weights, x), y, spec))(fast)


def follow(
    predict: Callable[[Fast, Tensor], Tensor], fast: Fast, x: Tensor, y: Tensor, spec: Spec, rate: Tensor | float
) -> Fast:
    """Weights after one step on each of the T examples, one after the other, in the order of the stream."""
    for t in range(x.shape[1]):
        step = gradient(predict, fast, x[:, t : t + 1], y[:, t : t + 1], spec)
        fast = tree_map(lambda weight, change: weight - rate * change, fast, step)
    return fast
