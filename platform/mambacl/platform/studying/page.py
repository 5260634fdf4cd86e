"""The page of a study: one file that needs no network and no script."""

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import pandas as pd
import yaml

from mambacl.platform.console import amount
from mambacl.platform.evaluation.tables import parts
from mambacl.platform.studying.cells import Table, cell, places, readable
from mambacl.platform.studying.config import Entry
from mambacl.platform.studying.finished import Finished
from mambacl.platform.studying.paper import known_figures
from mambacl.platform.studying.pictures import Picture, of_suite
from mambacl.platform.studying.standings import answer, metric_of, score_cell, several_seeds
from mambacl.platform.studying.thresholds import SHARE
from mambacl.platform.tracking import record as records

UNKNOWN = "not recorded"


def render(
    study: Finished,
    rows: pd.DataFrame,
    steps: pd.DataFrame,
    fields: pd.DataFrame,
    pictures: Mapping[str, Mapping[str, Picture]],
    transferred: Picture | None = None,
) -> str:
    """The HTML. rows, steps, fields: as of `standings`, `thresholds` and `importances`; pictures: by family and what they show;
    transferred: that of learners asked about other families."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mambacl.platform.studying", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        name=study.config.name,
        question=study.config.question,
        answer=answer(rows),
        standings=_standings(rows),
        several_seeds=several_seeds(rows),
        families=list(_families(study)),
        pictures=pictures,
        transferred=transferred,
        steps=_steps(steps),
        share=f"{100 * SHARE:.0f}",
        search=_search(fields) if len(fields) else None,
        line_up=_line_up(rows),
        known=_known(study, rows),
        missing=_missing(study),
        made_with=_made_with(study),
        configs=list(_configs(study)),
    )


def _standings(rows: pd.DataFrame) -> Table:
    """Learners x families: score with interval, places, and what the interval is over."""
    families = parts(rows, "family")
    best = {family: mine.set_index("learner").to_dict("index") for family, mine in families.items()}
    columns = ["learner"]
    for family, mine in families.items():
        title = f"{family}: " if family else ""
        columns += [f"{title}{metric_of(mine)}", f"{title}place", f"{title}episodes × classes × seeds"]
    lines = []
    for learner in rows["learner"].unique():
        line = [learner]
        for known in best.values():
            row = known.get(learner)
            line += _place(row) if row else ["", "", ""]
        lines.append(line)
    return Table("All learners", columns, lines)


def _place(row: Mapping[str, Any]) -> list[str]:
    counts = " × ".join(f"{row[name]:,.0f}" for name in ("episodes", "classes", "seeds"))
    return [score_cell(row), places(row["best_place"], row["worst_place"]), counts]


def _families(study: Finished) -> Iterator[dict[str, Any]]:
    """Each family with its suites: name, pictures, tables."""
    for family in study.summary["evaluation"]:
        suites = [
            {
                "name": suite,
                "pictures": of_suite(study, family, suite),
                "tables": [
                    readable(path.stem.replace("_", " "), pd.read_csv(path))
                    for path in sorted(
                        study.results(family, suite).glob("*.csv"), key=lambda path: path.stem != "scores"
                    )
                ],
            }
            for suite in study.suites(family)
        ]
        yield {"name": family, "suites": suites}


def _steps(steps: pd.DataFrame) -> Table:
    lines = []
    for row in steps.to_dict("records"):
        reached = f"{row['reached']} of {row['seeds']}"
        if row["reached"]:
            interval = f" [{cell(row['low'])}, {cell(row['high'])}]" if row["reached"] > 1 else ""
            text = f"{cell(row['steps'])}{interval}"
        else:
            text = "not reached"
        lines.append([row["family"], row["learner"], f"{row['threshold']:.3g}", text, reached])
    return _without_empty(
        Table(
            "Steps to the threshold", ["family", "learner", "threshold", "steps [95 %]", "seeds that reach it"], lines
        )
    )


def _search(fields: pd.DataFrame) -> Table:
    lines = [
        [
            *(row["family"], row["learner"], row["field"], cell(row["chosen"])),
            "too few trials" if pd.isna(row["importance"]) else f"{100 * row['importance']:.0f} %",
            f"{row['complete']} of {row['trials']}",
        ]
        for row in fields.to_dict("records")
    ]
    columns = ["family", "learner", "field", "chosen", "importance", "complete trials"]
    return _without_empty(Table("What the search found", columns, lines))


def _line_up(rows: pd.DataFrame) -> Table:
    lines = [
        [row["family"], row["learner"], f"{row['parameters']:,}", f"{row['state_floats']:,}"]
        + [amount(row["support_flops"]), amount(row["query_flops"])]
        + ([f"{row['steps']:,}", f"{row['cpu_seconds'] / 60:.1f}"] if row["steps"] else ["", ""])
        for row in rows.to_dict("records")
    ]
    columns = ["family", "learner", "parameters", "state floats", "FLOPs an example", "FLOPs a query", "steps"]
    return _without_empty(Table("What each learner costs", [*columns, "CPU minutes"], lines))


def _known(study: Finished, rows: pd.DataFrame) -> Table | None:
    known = known_figures(study, rows)
    lines = [[row["what"], row["value"], row["ours"], row["mark"]] for row in known]
    return Table("The paper's figures", ["what", "the paper", "here", "trust"], lines) if lines else None


def _without_empty(table: Table) -> Table:
    """The table less its first column, the family, where a study has one only."""
    if any(line[0] for line in table.rows):
        return table
    return Table(table.title, table.columns[1:], [line[1:] for line in table.rows])


def _missing(study: Finished) -> list[tuple[str, str]]:
    """What failed and what was not run, with reasons."""
    failed = [(f"training {run}", f"failed: {reason}") for run, reason in study.summary["failed"].items()]
    not_run = [(f"suite {place}", f"not run: {reason}") for place, reason in study.summary["not_run"].items()]
    return failed + not_run


def _made_with(study: Finished) -> dict[str, str]:
    record = records.read(study.folder)
    commit = record.tags.get("mlflow.source.git.commit", UNKNOWN) if record else UNKNOWN
    seeds = {"seeds": ", ".join(map(str, study.config.seeds))}
    made_with = study.summary.get("made_with", {"versions and device": UNKNOWN})
    return seeds | made_with | {"git commit": commit}


def _configs(study: Finished) -> Iterator[tuple[str, str]]:
    """The study's config, and that of each learner as it was trained: (title, YAML)."""
    yield "the study", yaml.safe_dump(study.config.model_dump(mode="json"), sort_keys=False)
    firsts: dict[str, Entry] = {}
    for entry in study.entries:
        firsts.setdefault(entry.group, entry)
    for entry in firsts.values():
        last = study.trained.get(entry)
        config = last.config if last else entry.experiment
        yield f"{entry.group}, seed {entry.seed}", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
