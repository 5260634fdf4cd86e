"""What a study ends with: a table as CSV and Markdown, scores and learning curves as pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mambacl.platform.console import amount
from mambacl.platform.cost import Size
from mambacl.platform.evaluation.figures import save
from mambacl.platform.evaluation.summary import entries as entries_of
from mambacl.platform.evaluation.summary import shown
from mambacl.platform.evaluation.tables import parts, where
from mambacl.platform.studying import figures
from mambacl.platform.studying.config import Entry
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Checkpoint


def write(folder: Path, summary: Mapping[str, Any], trained: Sequence[Entry]) -> list[str]:
    """Write everything into the study's folder; returns the files."""
    last = {entry: found for entry in trained if (found := checkpoint.newest(folder / entry.path))}
    rows = pd.concat(
        [
            table(family, next(iter(suites.values())), {e: c for e, c in last.items() if e.family == family})
            for family, suites in summary["evaluation"].items()
        ],
        ignore_index=True,
    )
    rows.to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(markdown(rows))
    files = [folder / "table.csv", folder / "table.md"]
    for family, mine in parts(rows, "family").items():
        prefix = f"{family}_" if family else ""
        curves = {entry.label: pd.DataFrame(c.curve) for entry, c in last.items() if entry.family == family}
        files.append(save(figures.ranking(mine.reset_index(drop=True)), folder / f"{prefix}scores.png"))
        files.append(save(figures.curves(curves, mine), folder / f"{prefix}curves.png"))
    return [str(file) for file in files]


def table(family: str, summary: Mapping[str, Any], trained: Mapping[Entry, Checkpoint]) -> pd.DataFrame:
    """A row a learner, best first: score with its interval, what it costs, and how long it was trained on average."""
    rows = []
    for label, entry in entries_of(dict(summary)).items():
        progress = [found.progress for own, found in trained.items() if own.label == label]
        rows.append(
            {
                "family": family,
                "learner": label,
                "metric": summary["metric"],
                **{name: entry[name] for name in ("score", "low", "high", "score_seen", "episodes", "seeds")},
                **{field.name: entry[field.name] for field in dataclasses.fields(Size)},
                "steps": max((p.step for p in progress), default=0),
                "cpu_seconds": sum(p.cpu_seconds for p in progress) / max(1, len(progress)),
            }
        )
    return pd.DataFrame(rows).sort_values("score", ascending=summary["lower_is_better"], ignore_index=True)


def markdown(rows: pd.DataFrame) -> str:
    """The table for people: of one family with what each learner costs, of several with a column each."""
    if len(parts(rows, "family")) > 1:
        return _families(rows)
    lines = [
        f"| learner | {_metric(rows)} | parameters | state floats | FLOPs an example | a query | steps | CPU minutes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.to_dict("records"):
        trained = f"{row['steps']:,} | {row['cpu_seconds'] / 60:.1f}" if row["steps"] else " | "
        lines.append(
            f"| {row['learner']} | {_score(row)} | {row['parameters']:,} | {row['state_floats']:,} "
            f"| {amount(row['support_flops'])} | {amount(row['query_flops'])} | {trained} |"
        )
    return "\n".join(lines) + "\n"


def _families(rows: pd.DataFrame) -> str:
    families = list(rows["family"].unique())
    heads = [f"{family}: {_metric(where(rows, family=family))}" for family in families]
    lines = [f"| learner | {' | '.join(heads)} |", "| --- |" + " --- |" * len(families)]
    cells = {(row["learner"], row["family"]): _score(row) for row in rows.to_dict("records")}
    for learner in rows["learner"].unique():
        lines.append(f"| {learner} | {' | '.join(cells.get((learner, family), '') for family in families)} |")
    return "\n".join(lines) + "\n"


def _metric(rows: pd.DataFrame) -> str:
    metric = rows["metric"].iloc[0]
    return f"{metric}{', %' if metric == 'accuracy' else ''} [95 %]"


def _score(row: Mapping[str, Any]) -> str:
    return shown(dict(row), "score", "low", "high", row["metric"] == "accuracy")
