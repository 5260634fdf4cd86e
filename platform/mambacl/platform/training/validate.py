"""Scores of a learner on meta-val during training."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mambacl.learners.learner import Learner
from mambacl.learners.objective import losses, open_set_auroc, scores
from mambacl.learners.selectivity import true_mass
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.checkpoint import ExpertUse
from mambacl.platform.training.worker import Worker
from mambacl.tasks.episode import Episode
from mambacl.tasks.family import Family

MAP_EPISODES = 4
"""Episodes whose exact association maps are computed at each evaluation."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """Scores over the first `train.evaluate_episodes` of meta-val, the same on every worker."""

    point: dict[str, float]
    """meta_val/score and meta_val/loss among the label codes that compete in training, meta_val/score_all and meta_val/score_seen
    among all codes and those of the stream, meta_val/tasks of an episode, meta_val/true_mass on a few episodes for learners with
    association maps, meta_val/open_set_auroc where queries without an answer are asked, meta_val/experts for mixtures: how many
    experts are in even use (the exponential of the entropy), mean over layers."""
    scores: tuple[float, ...]
    """Score of each episode."""
    expert_use: ExpertUse = ()
    """Share of a task's queries that goes to an expert: [layer][task position][expert]; empty without experts."""


@torch.no_grad()
def validate(learner: Learner, family: Family, config: ExperimentConfig, worker: Worker, parts: int = 1) -> Validation:
    """Score the learner as it is, on as many episodes at once as a batch has, or a batch cut into parts."""
    learner.eval()
    episodes = config.train.evaluate_episodes
    family, codes = family.fitted("meta_val"), config.train.codes
    names = ["meta_val/loss", "meta_val/score", "meta_val/score_all", "meta_val/score_seen"]
    if family.config.stream.open_set:
        names.append("meta_val/open_set_auroc")
    table = torch.zeros(len(names), episodes, dtype=torch.float64)
    experts = getattr(config.learner, "experts", None)
    use = torch.zeros(learner.layers, family.config.tasks, experts.count if experts else 0, dtype=torch.float64)
    own = worker.share(range(episodes))
    at_once = max(1, config.train.batch // parts)
    for start in range(0, len(own), at_once):
        indices = own[start : start + at_once]
        episode = family.episodes("meta_val", indices).to(worker.device)
        output = learner(episode)
        prediction = output.prediction.float()
        columns = [losses(prediction, episode, codes)]
        columns += [scores(prediction, episode, among) for among in (codes, "all", "seen")]
        if family.config.stream.open_set:
            columns.append(open_set_auroc(prediction, episode).unsqueeze(1))
        for row, column in zip(table, columns, strict=True):
            row[list(indices)] = _mean(column)
        if output.expert_use:
            use += _by_task(output.expert_use, episode, family.config.tasks)
    # Each episode was scored by one worker; summing the tables with zeros elsewhere is exact.
    table = worker.total(table)
    point = dict(zip(names, table.mean(1).tolist(), strict=True)) | {"meta_val/tasks": float(family.config.tasks)}
    if learner.layers:
        # Exact maps are those of the whole stream.
        at_end = family.varied(stream=family.config.stream.model_copy(update={"query_after": "end"}))
        episode = at_end.episodes("meta_val", range(min(MAP_EPISODES, episodes))).to(worker.device)
        association = learner(episode, layers=(-1,), exact=True).associations[0]
        point["meta_val/true_mass"] = float(true_mass(association, episode)[:, : episode.answerable].mean())
    if experts:
        use = worker.total(use)
        use = use / use.sum(-1, keepdim=True)
        share = use.mean(1)
        point["meta_val/experts"] = float(torch.special.entr(share).sum(-1).exp().mean())
    learner.train()
    by_layer = tuple(tuple(tuple(shares) for shares in layer) for layer in use.tolist()) if experts else ()
    return Validation(point, tuple(table[1].tolist()), by_layer)


def _by_task(expert_use: Sequence[Tensor], episode: Episode, tasks: int) -> Tensor:
    """How often queries of each task went to each expert, (layers, K, E)."""
    asked = episode.answerable
    task_BMK = one_hot(episode.query_task[:, :asked], tasks).double()
    return torch.stack([torch.einsum("bmk,bme->ke", task_BMK, use[:, :asked].double()) for use in expert_use]).cpu()


def _mean(per_query: Tensor) -> Tensor:
    return per_query.double().mean(1).cpu()
