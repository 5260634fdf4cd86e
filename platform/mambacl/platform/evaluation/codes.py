"""Which label codes compete in the headline: those that competed in meta-training. The other score stands beside it."""

from collections.abc import Iterable

import pandas as pd

from mambacl.learners.objective import Codes
from mambacl.platform.config import ExperimentConfig

BESIDE: dict[Codes, Codes] = {"all": "seen", "seen": "all"}
"""The codes among which the other score is."""


def competing(models: Iterable[ExperimentConfig]) -> Codes:
    """The codes among which all contestants answer: those of the stream where any model was trained among these alone."""
    return "seen" if any(config.train.codes == "seen" for config in models) else "all"


def headline(rows: pd.DataFrame, codes: Codes) -> pd.DataFrame:
    """The rows of cells with `score` among these codes, and beside it `score_seen` or `score_all`; as they are where answers
    are no label codes."""
    if codes == "all" or "score_seen" not in rows:
        return rows
    whole = {name: name.replace("score", "score_all", 1) for name in ("score", "score_by_task") if name in rows}
    seen = {name.replace("score", "score_seen", 1): name for name in whole}
    return rows.rename(columns=whole).rename(columns=seen)
