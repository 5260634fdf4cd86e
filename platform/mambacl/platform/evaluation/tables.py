"""Tables of results: every figure with its interval and its counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mambacl.platform.evaluation.statistics import interval, paired_difference, places


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


def matrix(rows: pd.DataFrame, column: str = "score") -> np.ndarray:
    """One contestant's scores at one point, (seeds, episodes), episodes in order."""
    return rows.pivot(index="seed", columns="episode", values=column).to_numpy()


def score_table(rows: pd.DataFrame, axes: Sequence[str], higher_is_better: bool, column: str = "score") -> pd.DataFrame:
    """A row for each point and contestant, best first at each point: the score with its interval and counts, the
    difference of the best one at that point, paired, and the places that it may truly have.

    axes: columns of `rows` that tell points apart.
    """
    found = []
    for point in points_of(rows, axes):
        own = parts(where(rows, **point), "contestant")
        scores = {label: matrix(mine, column) for label, mine in own.items()}
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
                | {"episodes": mean.episodes, "seeds": mean.seeds}
            )
    return pd.DataFrame(found)


def interval_table(rows: pd.DataFrame, axes: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """A row for each point and contestant: the columns, each with its bounds NAME_low and NAME_high, and the counts."""
    found = []
    for point in points_of(rows, axes):
        for label, mine in parts(where(rows, **point), "contestant").items():
            means = {column: interval(matrix(mine, column)) for column in columns}
            row = point | {"contestant": label}
            for column, mean in means.items():
                row |= mean.under(column)
            found.append(row | {"episodes": mine["episode"].nunique(), "seeds": mine["seed"].nunique()})
    return pd.DataFrame(found)


def positions(rows: pd.DataFrame, column: str = "by_task") -> pd.DataFrame:
    """What one contestant has at each place of a column of lists, with its interval over episodes and seeds; places that
    hold nothing but NaN are left out. By default its score at each task position, 0 to K - 1."""
    at = pd.DataFrame(rows[column].tolist(), index=rows.index).dropna(axis=1, how="all")
    found = [interval(matrix(rows[["seed", "episode"]].assign(score=at[place]))) for place in at.columns]
    return pd.DataFrame(
        {"score": [f.score for f in found], "low": [f.low for f in found], "high": [f.high for f in found]},
        index=at.columns,
    ).assign(episodes=found[0].episodes, seeds=found[0].seeds)
