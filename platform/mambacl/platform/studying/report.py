"""What a study ends with: a table as CSV and Markdown, accuracies and learning curves as pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mambacl.platform.console import amount
from mambacl.platform.evaluation import figures
from mambacl.platform.training import checkpoint


def write(folder: Path, summary: Mapping[str, Any], trained: Mapping[str, Path]) -> list[str]:
    """Write everything into the study's folder; returns the files."""
    rows = table(summary, trained)
    rows.to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(markdown(rows))
    curves = {label: pd.DataFrame(checkpoint.newest(run).curve) for label, run in trained.items()}  # type: ignore[union-attr]
    drawn = {"accuracy": figures.ranking(rows), "curves": figures.curves(curves, rows)}
    pictures = [figures.save(figure, folder / f"{name}.png") for name, figure in drawn.items()]
    return [str(folder / "table.csv"), str(folder / "table.md"), *map(str, pictures)]


def table(summary: Mapping[str, Any], trained: Mapping[str, Path]) -> pd.DataFrame:
    """A row a learner, best first: score with its interval, what it costs, and how long it was trained."""
    entries = {summary["label"]: summary} | summary["models"] | summary["references"]
    rows = []
    for label, entry in entries.items():
        last = checkpoint.newest(trained[label]) if label in trained else None
        rows.append(
            {
                "learner": label,
                **{name: entry[name] for name in ("score", "low", "high", "score_seen", "episodes")},
                **{name: entry[name] for name in SIZES},
                "steps": last.progress.step if last else 0,
                "cpu_seconds": last.progress.cpu_seconds if last else 0.0,
            }
        )
    return pd.DataFrame(rows).sort_values("score", ascending=summary["lower_is_better"], ignore_index=True)


SIZES = (
    "parameters",
    "core_parameters",
    "active_parameters",
    "state_floats",
    "support_flops",
    "query_flops",
)


def markdown(rows: pd.DataFrame) -> str:
    """The table for people."""
    lines = [
        "| learner | accuracy, % [95 %] | parameters | state floats | FLOPs an example | a query | steps | CPU minutes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.to_dict("records"):
        trained = f"{row['steps']:,} | {row['cpu_seconds'] / 60:.1f}" if row["steps"] else " | "
        lines.append(
            f"| {row['learner']} | {100 * row['score']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}] "
            f"| {row['parameters']:,} | {row['state_floats']:,} | {amount(row['support_flops'])} "
            f"| {amount(row['query_flops'])} | {trained} |"
        )
    return "\n".join(lines) + "\n"
