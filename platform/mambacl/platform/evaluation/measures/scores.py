"""Scores of a contestant's answers, episode by episode."""

from typing import TYPE_CHECKING, Any

import pandas as pd
from einops import rearrange
from torch import Tensor

from mambacl.learners.learner import Learner
from mambacl.learners.objective import losses, open_set_auroc, scores
from mambacl.platform.evaluation.tables import BY_TASK
from mambacl.tasks.episode import Episode
from mambacl.tasks.family import Family

if TYPE_CHECKING:
    from mambacl.platform.evaluation.cells import Cell


def scores_of(cell: "Cell", family: Family, learner: Learner) -> pd.DataFrame:
    """A row an episode: number, `classes` of its tasks, loss among the codes of the stream, how well queries without an answer
    are told apart (`auroc`) where there are any, and what `scored` gives."""
    rows = []
    for episode in cell.batches(family):
        prediction = learner(episode).prediction.float()
        found = {
            "episode": episode.index.cpu().numpy(),
            "classes": classes_of(cell, family, episode),
            "loss": losses(prediction, episode, "seen").double().mean(1).cpu().numpy(),
        }
        found |= scored(prediction, episode, family.config.tasks)
        if family.config.stream.open_set:
            found["auroc"] = open_set_auroc(prediction, episode).double().cpu().numpy()
        rows.append(pd.DataFrame(found))
    return pd.concat(rows, ignore_index=True)


def scored(prediction: Tensor, episode: Episode, tasks: int) -> dict[str, Any]:
    """Columns `score` and, for classes, `score_seen`: the scores of episodes among all label codes and among those of the
    stream; and the same of each task under NAME_by_task."""
    found = by_task("score", scores(prediction, episode), tasks)
    if episode.objective == "classification":
        found |= by_task("score_seen", scores(prediction, episode, "seen"), tasks)
    return found


def by_task(name: str, per_query: Tensor, tasks: int) -> dict[str, Any]:
    """Columns NAME and NAME_by_task of what queries (B, M) have, in the order of their tasks."""
    means = rearrange(per_query.double(), "b (k q) -> b k q", k=tasks).mean(2).cpu().numpy()
    return {name: means.mean(1), name + BY_TASK: list(means)}


def classes_of(cell: "Cell", family: Family, episode: Episode) -> list[list[int]]:
    """The classes that each episode asks about, in the order of its tasks; none where tasks are no classes."""
    classes = family.asked_classes(cell.point.split, episode.index.tolist())
    return [[]] * len(episode.index) if classes is None else classes.tolist()
