"""Scores of a contestant's answers, episode by episode."""

from typing import TYPE_CHECKING

import pandas as pd
from einops import rearrange

from mambacl.learners.learner import Learner
from mambacl.learners.objective import losses, open_set_auroc, scores
from mambacl.tasks.family import Family

if TYPE_CHECKING:
    from mambacl.platform.evaluation.cells import Cell


def scores_of(cell: "Cell", family: Family, learner: Learner) -> pd.DataFrame:
    """A row an episode: number, score and loss over all label codes, score over those of the stream, the score of each
    task position, and how well queries without an answer are told apart (`auroc`) where there are any."""
    rows = []
    for episode in cell.batches(family):
        prediction = learner(episode).prediction.float()
        right = scores(prediction, episode).double().cpu()
        found = {
            "episode": episode.index.cpu().numpy(),
            "score": right.mean(1).numpy(),
            "score_seen": scores(prediction, episode, "seen").double().mean(1).cpu().numpy(),
            "loss": losses(prediction, episode, "seen").double().mean(1).cpu().numpy(),
            "by_task": list(rearrange(right, "b (k q) -> b k q", k=family.config.tasks).mean(2).numpy()),
        }
        if family.config.stream.open_set:
            found["auroc"] = open_set_auroc(prediction, episode).double().cpu().numpy()
        rows.append(pd.DataFrame(found))
    return pd.concat(rows, ignore_index=True)
