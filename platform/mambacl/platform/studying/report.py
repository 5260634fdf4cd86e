"""What a study ends with: a table as CSV and Markdown, accuracies and learning curves as pictures."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mambacl.platform.console import amount
from mambacl.platform.cost import Size
from mambacl.platform.evaluation import figures
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Progress


def write(folder: Path, summary: Mapping[str, Any], trained: Mapping[str, Path]) -> list[str]:
    """Write everything into the study's folder; returns the files."""
    last = {label: checkpoint.newest(run) for label, run in trained.items()}
    rows = table(summary, {label: found.progress for label, found in last.items() if found})
    rows.to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(markdown(rows))
    curves = {label: pd.DataFrame(found.curve) for label, found in last.items() if found}
    drawn = {"accuracy": figures.ranking(rows), "curves": figures.curves(curves, rows)}
    pictures = [figures.save(figure, folder / f"{name}.png") for name, figure in drawn.items()]
    return [str(folder / "table.csv"), str(folder / "table.md"), *map(str, pictures)]


def table(summary: Mapping[str, Any], trained: Mapping[str, Progress]) -> pd.DataFrame:
    """A row a learner, best first: score with its interval, what it costs, and how long it was trained."""
    entries = {summary["label"]: summary} | summary["models"] | summary["references"]
    rows = []
    for label, entry in entries.items():
        progress = trained.get(label)
        rows.append(
            {
                "learner": label,
                **{name: entry[name] for name in ("score", "low", "high", "score_seen", "episodes")},
                **{field.name: entry[field.name] for field in dataclasses.fields(Size)},
                "steps": progress.step if progress else 0,
                "cpu_seconds": progress.cpu_seconds if progress else 0.0,
            }
        )
    return pd.DataFrame(rows).sort_values("score", ascending=summary["lower_is_better"], ignore_index=True)


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
