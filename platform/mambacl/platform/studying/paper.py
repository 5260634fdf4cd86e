"""What is known of the paper's figures, beside those of a study: only what belongs to its families, learners and suites."""

from importlib import resources
from typing import Any

import pandas as pd
import yaml

from mambacl.platform.console import amount
from mambacl.platform.evaluation.tables import where
from mambacl.platform.studying.finished import Finished
from mambacl.platform.studying.standings import score_cell


def known_figures(study: Finished, rows: pd.DataFrame) -> list[dict[str, str]]:
    """What the paper says, and ours beside it: what, value, ours, mark. rows: as of `standings`."""
    text = (resources.files("mambacl.platform.studying") / "paper.yaml").read_text()
    return [
        {"what": known["what"], "value": known["value"], "ours": ours, "mark": known["mark"]}
        for known in yaml.safe_load(text)
        if (ours := _ours(study, rows, known))
    ]


def _ours(study: Finished, rows: pd.DataFrame, known: dict[str, Any]) -> str:
    """Our figures that belong to a known one, family by family; nothing where the study has none."""
    found = []
    for family in study.summary["evaluation"]:
        task = next(entry.experiment.task for entry in study.entries if entry.family == family)
        if known.get("dataset") not in (None, getattr(task, "dataset", None)):
            continue
        if known.get("suite") not in (None, *study.suites(family)):
            continue
        mine = where(rows, family=family, trained=True).to_dict("records")
        cells = [f"{row['learner']} {_cell(row, known)}" for row in mine if row["kind"] in known["learners"]]
        if cells:
            found.append(f"{f'{family}: ' if family else ''}{', '.join(cells)}")
    return "; ".join(found)


def _cell(row: dict[str, Any], known: dict[str, Any]) -> str:
    if known["ours"] == "score":
        return score_cell(row)
    if known["ours"] == "suite":
        return f"in suite {known['suite']}"
    return amount(row[known["ours"]])
