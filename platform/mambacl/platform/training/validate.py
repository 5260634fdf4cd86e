"""Scores of a learner on meta-val during training."""

import torch
from torch import Tensor

from mambacl.learners.learner import Learner
from mambacl.learners.objective import losses, open_set_auroc, scores
from mambacl.learners.selectivity import true_mass
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.worker import Worker
from mambacl.tasks.family import Family

MAP_EPISODES = 4
"""Episodes whose exact association maps are computed at each evaluation."""


@torch.no_grad()
def validate(
    learner: Learner, family: Family, config: ExperimentConfig, worker: Worker
) -> tuple[dict[str, float], tuple[float, ...]]:
    """Means over the first `train.evaluate_episodes` of meta-val, the same on every worker.

    meta_val/score and meta_val/loss over all label codes, meta_val/score_seen over those of the stream,
    meta_val/true_mass on a few episodes for learners with association maps, meta_val/open_set_auroc where queries without an
    answer are asked. And the score of each episode.
    """
    learner.eval()
    episodes = config.train.evaluate_episodes
    names = ["meta_val/loss", "meta_val/score", "meta_val/score_seen"]
    if family.config.stream.open_set:
        names.append("meta_val/open_set_auroc")
    table = torch.zeros(len(names), episodes, dtype=torch.float64)
    own = worker.share(range(episodes))
    for start in range(0, len(own), config.train.batch):
        indices = own[start : start + config.train.batch]
        episode = family.episodes("meta_val", indices).to(worker.device)
        prediction = learner(episode).prediction.float()
        columns = [losses(prediction, episode), scores(prediction, episode), scores(prediction, episode, "seen")]
        if family.config.stream.open_set:
            columns.append(open_set_auroc(prediction, episode).unsqueeze(1))
        for row, column in zip(table, columns, strict=True):
            row[list(indices)] = _mean(column)
    # Each episode was scored by one worker; summing the tables with zeros elsewhere is exact.
    table = worker.total(table)
    result = dict(zip(names, table.mean(1).tolist(), strict=True))
    if learner.layers:
        # Exact maps are those of the whole stream.
        at_end = family.resized(query_after="end")
        episode = at_end.episodes("meta_val", range(min(MAP_EPISODES, episodes))).to(worker.device)
        association = learner(episode, layers=(-1,), exact=True).associations[0]
        result["meta_val/true_mass"] = float(true_mass(association, episode)[:, : episode.answerable].mean())
    learner.train()
    return result, tuple(table[1].tolist())


def _mean(per_query: Tensor) -> Tensor:
    return per_query.double().mean(1).cpu()
