"""Selectivity regularisation (the paper's section 3; Lee et al., 2023, for `mass`), one for every mixer with scores.

Shapes: B episodes, M queries, T support examples, L tokens, H heads.
"""

import math

import torch
from torch import Tensor

from mambacl.learners.learner import Association
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.tasks.episode import Episode

EPSILON = 1e-9
"""Added to magnitudes, so that a token that is not read at all costs much and not everything."""


def layer_numbers(config: SelectivityConfig, layers: int) -> tuple[int, ...]:
    """The layers that the config names, for a learner with that many."""
    if config.layers == "last":
        return (layers - 1,)
    return tuple(range(layers)) if config.layers == "all" else config.layers


def selectivity_losses(association: Association, episode: Episode, config: SelectivityConfig) -> tuple[Tensor, Tensor]:
    """Loss of each query (B, M), mean over heads, and whether it counts: a query without a support example does not.

    With q the scores made shares (`normalisation`) over the tokens that take part, and P the n of them that belong to the query's task:
    kl = -(1/n) sum_P log q - log n, which is 0 for q even on P and log K for flat scores; mass = -log sum_P q.
    """
    logs, chosen = log_shares(association, config)
    match = (_match(association, episode)[:, :, chosen] & (logs[:, 0] > -torch.inf)).unsqueeze(1)
    count = match.sum(-1)
    if config.loss == "kl":
        losses = -logs.masked_fill(~match, 0).sum(-1) / count.clamp(min=1) - count.clamp(min=1).log()
    else:
        losses = -logs.masked_fill(~match, -torch.inf).logsumexp(-1)
    counts = count[:, 0] > 0
    return losses.mean(1).masked_fill(~counts, 0), counts


def log_shares(association: Association, config: SelectivityConfig) -> tuple[Tensor, Tensor]:
    """Logarithms of the scores made shares of 1 (B, H, M, l) over the l tokens that take part, -inf where a query cannot see
    one; and which of all tokens those are, (L,) bool. H: the heads that are pulled."""
    chosen = _tokens(association, config)
    scores = association.scores[:, : math.ceil(config.heads * association.scores.shape[1]), :, chosen].float()
    if (config.normalisation or association.normalisation) == "linear":
        scores = (scores.abs() + EPSILON).log().masked_fill(scores == -torch.inf, -torch.inf)
    return scores - scores.logsumexp(-1, keepdim=True), chosen


def true_mass(association: Association, episode: Episode) -> Tensor:
    """Share of a query's true weight (B, M) that lies on support examples of its own task."""
    if association.weights is None:
        raise ValueError("true_mass needs exact association weights: ask forward for them with exact=True")
    return (association.weights * _match(association, episode)).sum(-1)


def _match(association: Association, episode: Episode) -> Tensor:
    """Whether token and query belong to one task, (B, M, L) bool."""
    return episode.query_task.unsqueeze(-1) == episode.support_task[:, association.example].unsqueeze(1)


def _tokens(association: Association, config: SelectivityConfig) -> Tensor:
    """Whether each token takes part, (L,) bool; a joined token is both label and input."""
    joined = bool(association.labelled.all())
    if config.tokens == "both" or joined:
        return torch.ones_like(association.labelled)
    return association.labelled if config.tokens == "label" else ~association.labelled
