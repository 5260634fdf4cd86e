"""What learners that were trained on one family score on another."""

import pandas as pd

from mambacl.platform.evaluation.summary import entries as entries_of
from mambacl.platform.studying.finished import Finished, on_family


def transfers(study: Finished) -> pd.DataFrame:
    """A row for each meta-trained learner, family that it was trained on, and family that it was asked about.

    learner, trained_on, asked_on, metric, score, low, high. Empty where no family was asked about but the learners' own.
    """
    families = list(study.summary["evaluation"])
    rows = []
    for trained_on in families if study.config.transfer else ():
        summaries = study.suites(trained_on)
        own = next(summary for summary in summaries.values() if "score" in summary)
        asked = {name: own if name == trained_on else summaries.get(on_family(name)) for name in families}
        for asked_on, summary in asked.items():
            if summary is None:
                continue
            trained = {summary["label"], *summary["models"]}
            rows += [
                {"learner": label, "trained_on": trained_on, "asked_on": asked_on, "metric": summary["metric"]}
                | {name: entry[name] for name in ("score", "low", "high")}
                for label, entry in entries_of(summary).items()
                if label in trained
            ]
    return pd.DataFrame(rows)
