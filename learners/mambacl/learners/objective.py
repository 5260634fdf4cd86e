"""Losses and scores of an answered episode, query by query.

Shapes: B episodes, M queries, V label codes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.tasks.episode import Episode
from mambacl.tasks.family_config import Objective

Codes = Literal["all", "seen"]
"""Label codes that compete: the whole vocabulary, or those that the stream has shown."""


def losses(prediction: Tensor, episode: Episode, codes: Codes = "all") -> Tensor:
    """Loss of each query that has an answer (B, M): cross-entropy, mean squared error, or 1 - cos of the angle error.

    Queries of tasks that the stream does not have are left out. An angle's vector is divided by max(length, 0.1), so that
    a vector near zero is no confident answer.
    """
    prediction, target = _answerable(prediction, episode)
    if episode.objective == "classification":
        logits = prediction if codes == "all" else seen_only(prediction, episode)
        return F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    if episode.objective == "regression":
        return (prediction - target).square().mean(-1)
    direction = prediction / prediction.norm(dim=-1, keepdim=True).clamp(min=0.1)
    return 1 - (direction * target).sum(-1)


def scores(prediction: Tensor, episode: Episode, codes: Codes = "all") -> Tensor:
    """What is reported for each query that has an answer (B, M), float32: 1 for a right one, or the loss for regression
    and angles."""
    if episode.objective != "classification":
        return losses(prediction, episode)
    prediction, target = _answerable(prediction, episode)
    logits = prediction if codes == "all" else seen_only(prediction, episode)
    return (logits.argmax(-1) == target).float()


def higher_is_better(objective: Objective) -> bool:
    """Accuracy is to be high; the losses that score regression and angles are to be low."""
    return objective == "classification"


def seen_only(logits: Tensor, episode: Episode) -> Tensor:
    """Logits (B, M, V) with -inf for codes that the stream has not shown by the time of the query."""
    places = torch.arange(episode.support_y.shape[1], device=logits.device)
    first = torch.full((len(logits), logits.shape[-1]), len(places), device=logits.device)
    first.scatter_reduce_(1, episode.support_y, places.expand_as(episode.support_y), "amin")
    seen = first.unsqueeze(1) <= episode.query_after[:, : logits.shape[1]].unsqueeze(-1)
    return logits.masked_fill(~seen, -torch.inf)


def open_set_auroc(prediction: Tensor, episode: Episode) -> Tensor:
    """How well the largest probability tells queries with an answer from those without: the chance (B,) that it is larger
    for a random query of the first kind than for one of the second, 0.5 for a guess (a tie counts half)."""
    confidence = prediction.softmax(-1).amax(-1)
    known, unknown = confidence.tensor_split([episode.answerable], dim=1)
    larger = known.unsqueeze(2) - unknown.unsqueeze(1)
    return (0.5 * (1 + larger.sign())).mean((1, 2))


def _answerable(prediction: Tensor, episode: Episode) -> tuple[Tensor, Tensor]:
    """Predictions and targets of the queries that have an answer."""
    count = episode.answerable
    return prediction[:, :count], episode.query_y[:, :count]
