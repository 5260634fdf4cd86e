"""How fast learners learn: the steps of training after which they first reach a score."""

import statistics
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mambacl.learners.objective import higher_is_better
from mambacl.platform.evaluation.statistics import Sample, interval
from mambacl.platform.studying.config import Entry
from mambacl.platform.studying.finished import Finished

SHARE = 0.8
"""Of the best learner's final meta-val score; a loss is to come within 1 / SHARE of the lowest."""

COLUMN = "meta_val/score"


def thresholds(study: Finished) -> pd.DataFrame:
    """A row for each family and learner: steps to the family's threshold, with an interval over seeds.

    family, learner, threshold, seeds, reached (seeds that reach it), steps, low, high; the last three are over the seeds that
    reach it, and missing where none does. Steps are those of the first evaluation that is as good.
    """
    families = dict.fromkeys(entry.family for entry in study.curves)
    found = [_of_family({e: c for e, c in study.curves.items() if e.family == family}) for family in families]
    return pd.DataFrame([row for rows in found for row in rows])


def _of_family(curves: Mapping[Entry, pd.DataFrame]) -> list[dict]:
    higher = higher_is_better(next(iter(curves)).experiment.task.output)
    groups: dict[str, list[pd.DataFrame]] = {}
    for entry, curve in curves.items():
        groups.setdefault(entry.label, []).append(curve)
    finals = [statistics.mean([curve[COLUMN].iloc[-1] for curve in own]) for own in groups.values()]
    threshold = SHARE * max(finals) if higher else min(finals) / SHARE
    family = next(iter(curves)).family
    rows = []
    for label, own in groups.items():
        steps = [step for curve in own if (step := first_step(curve, threshold, higher)) is not None]
        row = {"family": family, "learner": label, "threshold": threshold, "seeds": len(own), "reached": len(steps)}
        if steps:
            over = interval(Sample.of(np.array(steps, dtype=float)[:, None]))
            row |= {"steps": over.score, "low": over.low, "high": over.high}
        rows.append({"steps": None, "low": None, "high": None} | row)
    return rows


def first_step(curve: pd.DataFrame, threshold: float, higher: bool) -> int | None:
    """The first step whose meta-val score is at least as good, or None."""
    good = curve[COLUMN] >= threshold if higher else curve[COLUMN] <= threshold
    steps = list(curve.loc[good, "step"])
    return int(steps[0]) if steps else None
