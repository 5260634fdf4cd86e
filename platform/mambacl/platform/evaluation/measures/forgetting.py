"""What becomes of each task while later ones are read: one pass over the stream, with all queries so far asked after each task.

Shapes: B episodes, K tasks, Q queries a task, V label codes.
"""

import dataclasses
from typing import TYPE_CHECKING

import pandas as pd
import torch
from einops import rearrange, repeat
from torch import Tensor

from mambacl.learners.learner import Learner
from mambacl.learners.objective import losses
from mambacl.platform.evaluation.measures.scores import by_task, classes_of, scored
from mambacl.tasks.episode import Episode
from mambacl.tasks.family import Family

if TYPE_CHECKING:
    from mambacl.platform.evaluation.cells import Cell


def forgetting_of(cell: "Cell", family: Family, learner: Learner) -> pd.DataFrame:
    """A row an episode: number and `classes`; the scores of all queries at the end, as `scored` gives them; `matrix`, K x K in
    rows, the score of task i after task k at k K + i, NaN for tasks to come; `forgetting`, how much worse tasks before the last
    are at the end than they were right after they were read, on average.

    Classes compete with those of the tasks up to their own, the same after every task, so that a growing choice is not taken
    for forgetting; in `matrix_seen` and `forgetting_seen` with all read so far. Values have a loss, and no competition.
    """
    rows, tasks = [], family.config.tasks
    sign = 1 if family.spec.output == "classification" else -1
    for episode in cell.batches(family):
        fixed, seen, end = _matrices(episode, learner, tasks)
        classes = classes_of(cell, family, episode)
        rows.append(
            pd.DataFrame(
                {
                    "episode": episode.index.cpu().numpy(),
                    "classes": classes,
                    **scored(end, episode, tasks),
                    **by_task("forgetting", sign * _lost(fixed), tasks - 1),
                    **by_task("forgetting_seen", sign * _lost(seen), tasks - 1),
                    "matrix": list(fixed.flatten(1).numpy()),
                    "matrix_seen": list(seen.flatten(1).numpy()),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _matrices(episode: Episode, learner: Learner, tasks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, K, K) of [after task k][task i] among the codes of tasks up to i, and up to k; predictions at the end."""
    B, T = episode.support_task.shape
    S, Q = T // tasks, episode.query_x.shape[1] // tasks
    fixed = torch.full((B, tasks, tasks), torch.nan, dtype=torch.float64)
    seen, end = fixed.clone(), torch.empty(0)
    support, queries = learner.inputs(episode)
    state = learner.init_state(B)
    for k in range(tasks):
        new = slice(k * S, (k + 1) * S)
        state = learner.absorb(state, support[:, new], episode.support_y[:, new])
        asked = _first_queries(episode, (k + 1) * Q)
        prediction = learner.answer(state, queries[:, : (k + 1) * Q]).float()
        of_fixed, of_seen = _scores(prediction, asked, episode.support_y[:, ::S][:, : k + 1], Q)
        fixed[:, k, : k + 1] = rearrange(of_fixed, "b (k q) -> b k q", q=Q).mean(2).cpu()
        seen[:, k, : k + 1] = rearrange(of_seen, "b (k q) -> b k q", q=Q).mean(2).cpu()
        end = prediction
    return fixed, seen, end


def _scores(prediction: Tensor, asked: Episode, codes: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """Scores (B, M) of queries among the codes (B, k + 1) of tasks up to their own, and of all these tasks."""
    if asked.objective != "classification":
        found = losses(prediction, asked).double()
        return found, found
    among = prediction.gather(2, repeat(codes, "b k -> b m k", m=prediction.shape[1]))
    task = torch.arange(codes.shape[1], device=codes.device)
    own = task.repeat_interleave(queries)
    later = task > own.unsqueeze(1)
    fixed = among.masked_fill(later, -torch.inf).argmax(2) == own
    return fixed.double(), (among.argmax(2) == own).double()


def _first_queries(episode: Episode, count: int) -> Episode:
    """The episode with its first queries: those of the first tasks, since they are in the order of the stream."""
    names = ("query_x", "query_y", "query_task", "query_after")
    return dataclasses.replace(episode, **{name: getattr(episode, name)[:, :count] for name in names})


def _lost(matrix: Tensor) -> Tensor:
    """The score right after a task minus that at the end, of all tasks but the last, (B, K - 1)."""
    return (matrix.diagonal(dim1=1, dim2=2) - matrix[:, -1])[:, :-1]
