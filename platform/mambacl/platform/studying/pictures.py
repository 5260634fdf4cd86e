"""A study's pictures: drawn into its folder, and put into its page with the words for those who cannot see them."""

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mambacl.platform.evaluation.figures import DPI, save
from mambacl.platform.evaluation.summary import entries as entries_of
from mambacl.platform.evaluation.summary import shown
from mambacl.platform.studying import figures
from mambacl.platform.studying.config import Entry
from mambacl.platform.studying.finished import Finished
from mambacl.platform.studying.standings import score_cell

WEIGHT = "selectivity.weight"
"""The field whose variation is drawn as learning with and without regularisation."""

MANY = 6
"""Figures that a picture's words name at most."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG of the study's folder."""

    path: Path
    alt: str
    """What it shows, with its main figures."""
    caption: str = ""

    @property
    def width(self) -> int:
        """In CSS pixels, at the size that it was drawn for: its header has the width in dots."""
        return round(int.from_bytes(self.path.read_bytes()[16:20], "big") * 96 / DPI)

    @property
    def uri(self) -> str:
        """The whole picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.path.read_bytes()).decode()}"


def drawn(
    study: Finished, family: str, rows: pd.DataFrame, looks: figures.Looks, fields: pd.DataFrame
) -> dict[str, Picture]:
    """The pictures of a family by what they show. rows: as of `standings`; fields: as of `importances`, both of the family."""
    curves = {entry: curve for entry, curve in study.curves.items() if entry.family == family}
    place = f" on {family}" if family else ""
    metric = rows["metric"].iloc[0]
    listed = _few([f"{row['learner']} {score_cell(row)}" for row in rows.to_dict("records")])
    found = {
        "scores": (
            figures.ranking(rows, looks),
            f"Bars: meta-test {metric}{place}, best first. {listed}.",
            "Meta-test scores with 95 % intervals; grey: references, which are not meta-trained.",
        )
    }
    if curves:
        found["curves"] = (
            figures.curves(curves, rows, looks),
            f"Learning curves{place}: meta-val score against CPU minutes. At the end: {_ends(curves)}.",
            "Meta-val score against CPU time; one panel a learner, one line a seed, the others behind it in grey.",
        )
    if curves and WEIGHT in study.config.vary:
        found["regularisation"] = (
            figures.regularised(curves, WEIGHT, looks),
            f"Learning curves{place} with and without selectivity regularisation. At the end: {_ends(curves)}.",
            "With and without selectivity regularisation: mean over seeds, shade from the lowest to the highest seed; "
            "dashed: without.",
        )
    found["pareto"] = (
        figures.pareto(rows, looks),
        f"Score against cost{place}. On the front of state floats: {_front(rows, 'state_floats')}. Of FLOPs: "
        f"{_front(rows, 'flops')}.",
        "Score against what is held and what is computed. Black: the Pareto front.",
    )
    shares = fields.dropna(subset=["importance"])
    if len(shares):
        largest = shares.sort_values("importance", ascending=False).to_dict("records")
        named = [f"{row['learner']} {row['field']} {100 * row['importance']:.0f} %" for row in largest]
        found["importance"] = (
            figures.importances(shares, looks),
            f"Bars: importance of the searched fields{place}. {_few(named)}.",
            "What decided whether a trial was among the best on meta-val (PED-ANOVA); of few trials it says little.",
        )
    prefix = f"{family}_" if family else ""
    return {
        name: Picture(save(figure, study.folder / f"{prefix}{name}.png"), alt, caption)
        for name, (figure, alt, caption) in found.items()
    }


def transferred(study: Finished, rows: pd.DataFrame) -> Picture:
    """Scores by what learners were trained on and asked about. rows: as of `transfers`."""
    path = save(figures.transfers(rows), study.folder / "transfer.png")
    told = [
        f"{r['learner']} from {r['trained_on']} on {r['asked_on']} {score_cell(r)}" for r in rows.to_dict("records")
    ]
    return Picture(
        path,
        f"Meta-test {rows['metric'].iloc[0]} by what learners were trained on and asked about: {_few(told)}.",
        "Rows: what learners were meta-trained on. Columns: whose new classes they were asked about.",
    )


def of_suite(study: Finished, family: str, suite: str) -> list[Picture]:
    """The pictures that a suite left."""
    summary = study.suites(family)[suite]
    said = "."
    if "score" in summary:
        percent = summary["metric"] == "accuracy"
        scores = sorted(entries_of(summary).items(), key=lambda pair: pair[1]["score"], reverse=percent)
        figures_of = [f"{label} {shown(own, 'score', 'low', 'high', percent)}" for label, own in scores]
        said = f": {summary['metric']} at the first point, best first: {_few(figures_of)}."
    return [
        Picture(path, f"Suite {suite}{f' on {family}' if family else ''}, picture {path.stem}{said}")
        for path in sorted(study.results(family, suite).glob("*.png"))
    ]


def _few(parts: list[str]) -> str:
    return ", ".join(parts[:MANY]) + (f" and {len(parts) - MANY} more" if len(parts) > MANY else "")


def _ends(curves: Mapping[Entry, pd.DataFrame]) -> str:
    ends: dict[str, list[Any]] = {}
    for entry, curve in curves.items():
        ends.setdefault(entry.label, []).append(curve["meta_val/score"].iloc[-1])
    return _few([f"{label} {sum(own) / len(own):.3f}" for label, own in ends.items()])


def _front(rows: pd.DataFrame, cost: str) -> str:
    front = figures.front_of(figures.with_flops(rows), cost)
    return _few(list(front["learner"]))
