"""Tables of results: every figure with its interval and its counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mambacl.platform.evaluation.statistics import Sample, interval, paired_difference, places


def parts(rows: pd.DataFrame, column: str) -> dict[Any, pd.DataFrame]:
    """Rows by the value of a column, in order of first appearance."""
    return dict(list(rows.groupby(column, sort=False)))


def where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values."""
    for column, value in values.items():
        rows = rows.loc[rows[column] == value]
    return rows


def points_of(rows: pd.DataFrame, axes: Sequence[str]) -> list[dict[str, Any]]:
    """The points that rows belong to, by their place on the axes; one without a place where there are no axes."""
    if not axes:
        return [{}]
    found = rows.drop_duplicates(list(axes))[list(axes)].itertuples(index=False, name=None)
    return [dict(zip(axes, place, strict=True)) for place in found]


BY_TASK = "_by_task"
"""What is behind a column's name in that of its values for each task of an episode, in the order of `classes`."""


def sample(rows: pd.DataFrame, column: str = "score") -> Sample:
    """What one contestant has in a column at one point, episodes in order; task by task, for the first tasks or all, and with the
    classes asked about where the rows have both."""
    by_task = column + BY_TASK
    if by_task not in rows or "classes" not in rows or not len(rows["classes"].iloc[0]):
        return Sample(_seeds_by_episodes(rows, column)[..., None].astype(float))
    values = np.stack([np.stack(list(seed)) for seed in _seeds_by_episodes(rows, by_task)])
    classes = np.stack(list(_seeds_by_episodes(rows, "classes")[0]))
    return Sample(values, classes[:, : values.shape[2]])


def _seeds_by_episodes(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows.pivot(index="seed", columns="episode", values=column).to_numpy()


def score_table(rows: pd.DataFrame, axes: Sequence[str], higher_is_better: bool, column: str = "score") -> pd.DataFrame:
    """A row for each point and contestant, best first at each point: the score with its interval and counts, the
    difference of the best one at that point, paired, and the places that it may truly have.

    axes: columns of `rows` that tell points apart.
    """
    found = []
    for point in points_of(rows, axes):
        own = parts(where(rows, **point), "contestant")
        scores = {label: sample(mine, column) for label, mine in own.items()}
        ranks = places(scores, higher_is_better)
        means = {label: interval(values) for label, values in scores.items()}
        order = sorted(means, key=lambda label: means[label].score, reverse=higher_is_better)
        for label in order:
            difference = paired_difference(scores[label], scores[order[0]])
            mean = means[label]
            found.append(
                point
                | {"contestant": label, "score": mean.score, "low": mean.low, "high": mean.high}
                | {"to_best": difference.score, "to_best_low": difference.low, "to_best_high": difference.high}
                | {"best_place": ranks[label][0], "worst_place": ranks[label][1]}
                | {"episodes": mean.episodes, "classes": mean.classes, "seeds": mean.seeds}
            )
    return pd.DataFrame(found)


def interval_table(rows: pd.DataFrame, axes: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """A row for each point and contestant: the columns, each with its bounds NAME_low and NAME_high, and the counts."""
    found = []
    for point in points_of(rows, axes):
        for label, mine in parts(where(rows, **point), "contestant").items():
            means = {column: interval(sample(mine, column)) for column in columns}
            row = point | {"contestant": label}
            for column, mean in means.items():
                row |= mean.under(column)
            found.append(row | {"episodes": mine["episode"].nunique(), "seeds": mine["seed"].nunique()})
    return pd.DataFrame(found)


def positions(rows: pd.DataFrame, column: str = "score" + BY_TASK, by_class: bool = True) -> pd.DataFrame:
    """What one contestant has at each place of a column of lists, with its interval; places that hold nothing but NaN are left
    out. By default its score at each task position, 0 to K - 1.

    by_class: whether the places are tasks, again and again in the order of `classes`.
    """
    at = pd.DataFrame(rows[column].tolist(), index=rows.index).dropna(axis=1, how="all")
    classes = rows["classes"] if by_class and "classes" in rows and len(rows["classes"].iloc[0]) else None
    found = []
    for place in at.columns:
        here = rows[["seed", "episode"]].assign(score=at[place])
        if classes is not None:
            here["classes"] = [[of[place % len(of)]] for of in classes]
            here["score" + BY_TASK] = [[score] for score in at[place]]
        found.append(interval(sample(here)))
    return pd.DataFrame(
        {"score": [f.score for f in found], "low": [f.low for f in found], "high": [f.high for f in found]},
        index=at.columns,
    ).assign(episodes=found[0].episodes, classes=found[0].classes, seeds=found[0].seeds)
