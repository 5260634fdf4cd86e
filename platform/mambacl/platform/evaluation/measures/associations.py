"""What queries read: associations of one layer with the examples of the stream.

Shapes: B episodes, M queries, T support examples, L tokens, H heads, K tasks, Q queries a task.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from torch import Tensor

from mambacl.learners.learner import Learner
from mambacl.learners.selectivity import log_shares
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.platform.evaluation.measures.scores import by_task, classes_of, scored
from mambacl.tasks.family import Family

if TYPE_CHECKING:
    from mambacl.platform.evaluation.cells import Cell

MAPS = 1
"""Episodes whose maps are kept: the first ones."""


def associations_of(cell: "Cell", family: Family, learner: Learner) -> pd.DataFrame:
    """A row an episode: number and `classes`; scores, as `scored` gives them; `mass`, the share of a query's true weight that lies
    on examples of its own task, and `mass_regularised`, that of the shares that the regulariser makes of the scores by default,
    mean over heads; `entropy` of the true weights over the examples, 1 where they are even; all of them task by task, too; `map`
    (K, T), the true weights of the first query of each task, of the first episodes only."""
    assert cell.point.layer is not None
    rows, tasks = [], family.config.tasks
    for episode in cell.batches(family):
        output = learner(episode, layers=(cell.point.layer,), exact=True)
        association = output.associations[0]
        assert association.weights is not None
        logs, chosen = log_shares(association, SelectivityConfig())
        exact = by_example(association.weights, association.example)
        regularised = by_example(logs.exp().mean(1), association.example[chosen])
        own = (episode.query_task.unsqueeze(2) == episode.support_task.unsqueeze(1)).double()
        mass = (exact * own).sum(2)
        entropy = torch.special.entr(exact).sum(2) / math.log(exact.shape[2])
        first = rearrange(exact, "b (k q) t -> b k q t", k=tasks)[:, :, 0]
        numbers = episode.index.tolist()
        rows.append(
            pd.DataFrame(
                {
                    "episode": numbers,
                    "classes": classes_of(cell, family, episode),
                    **scored(output.prediction.float(), episode, tasks),
                    **by_task("mass", mass, tasks),
                    **by_task("mass_regularised", (regularised * own).sum(2), tasks),
                    **by_task("entropy", entropy, tasks),
                    "map": [
                        row.flatten().cpu().numpy() if number < MAPS else np.empty(0)
                        for number, row in zip(numbers, first, strict=True)
                    ],
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def by_example(weights: Tensor, example: Tensor) -> Tensor:
    """Weights of tokens (B, M, L) summed over the tokens of each example, (B, M, T) float64. example: (L,), of each token."""
    T = int(example.max()) + 1
    found = torch.zeros(*weights.shape[:2], T, dtype=torch.float64, device=weights.device)
    return found.index_add_(2, example, weights.double())
