"""Losses and scores of an answered episode, query by query.

Shapes: B episodes, M queries, V label codes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mambacl.tasks.episode import Episode

Codes = Literal["all", "seen"]
"""Label codes that compete: the whole vocabulary, or those that the stream has shown."""


def losses(prediction: Tensor, episode: Episode, codes: Codes = "all") -> Tensor:
    """Loss of each query (B, M): cross-entropy, mean squared error, or 1 - cos of the angle error.

    An angle's vector is divided by max(length, 0.1), so that a vector near zero is no confident answer.
    """
    if episode.objective == "classification":
        logits = prediction if codes == "all" else seen_only(prediction, episode)
        return F.cross_entropy(logits.transpose(1, 2), episode.query_y, reduction="none")
    if episode.objective == "regression":
        return (prediction - episode.query_y).square().mean(-1)
    direction = prediction / prediction.norm(dim=-1, keepdim=True).clamp(min=0.1)
    return 1 - (direction * episode.query_y).sum(-1)


def scores(prediction: Tensor, episode: Episode, codes: Codes = "all") -> Tensor:
    """What is reported for each query (B, M), float32: 1 for a right answer, or the loss for regression and angles."""
    if episode.objective != "classification":
        return losses(prediction, episode)
    logits = prediction if codes == "all" else seen_only(prediction, episode)
    return (logits.argmax(-1) == episode.query_y).float()


def seen_only(logits: Tensor, episode: Episode) -> Tensor:
    """Logits (B, M, V) with -inf for codes that the stream has not shown."""
    seen = torch.zeros(logits.shape[0], logits.shape[-1], dtype=torch.bool, device=logits.device)
    seen.scatter_(1, episode.support_y, True)
    return logits.masked_fill(~seen.unsqueeze(1), -torch.inf)
