"""Figures of a study. A learner has the same colour in all of them, and in those of its suites."""

from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mambacl.platform.console import amount
from mambacl.platform.evaluation.figures import plain
from mambacl.platform.evaluation.tables import parts
from mambacl.platform.studying.config import Entry
from mambacl.platform.studying.standings import counted

Looks = Mapping[str, Mapping[str, Any]]
"""Colour, line and marker by label."""

BEHIND = "#cccccc"
"""Colour of lines that are there to compare with."""


def ranking(rows: pd.DataFrame, looks: Looks) -> Figure:
    """Scores with their intervals, best on top; references in grey. rows: as of `standings`, of one family."""
    figure, axis = plt.subplots(figsize=(7, 0.3 * len(rows) + 0.8))
    for place, row in enumerate(rows.to_dict("records")):
        score, low, high = row["score"], row["low"], row["high"]
        axis.barh(place, score, color=looks[row["learner"]]["color"])
        axis.errorbar(score, place, xerr=[[score - low], [high - score]], color="black", capsize=2)
        text = f"  {100 * score:.1f}" if row["metric"] == "accuracy" else f"  {score:.4f}"
        axis.text(high, place, text, va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), rows["learner"])
    axis.invert_yaxis()
    axis.set_xlabel(f"meta-test {rows['metric'].iloc[0]}, 95 % intervals over {counted(rows)}\ngrey: references")
    plain(axis)
    return figure


def curves(points: Mapping[Entry, pd.DataFrame], rows: pd.DataFrame, looks: Looks) -> Figure:
    """Meta-val score against CPU time, a panel a learner, best first, a line a seed, with all others behind it in grey.

    points: the curve of each training; rows: as of `standings`, of the same family.
    """
    labels = [label for label in rows["learner"] if label in {entry.label for entry in points}]
    figure, panels = _panels(labels, "CPU minutes of meta-training")
    for label, axis in panels.items():
        for entry, curve in sorted(points.items(), key=lambda pair: pair[0].label == label):
            own = {"color": looks[label]["color"], "linewidth": 2} if entry.label == label else {"color": BEHIND}
            axis.plot(curve["train/cpu_seconds"] / 60, curve["meta_val/score"], **{"linewidth": 0.8, **own})
    _from_zero(figure)
    return figure


def regularised(points: Mapping[Entry, pd.DataFrame], field: str, looks: Looks) -> Figure:
    """Meta-val score against steps, a panel a learner, a line for each weight of the regularisation: the mean over seeds, with
    all seeds within the shade. Without regularisation the line is black and dashed.

    field: that of the weight, among the varied ones.
    """
    learners: dict[str, dict[float, list[Entry]]] = {}
    for entry in points:
        others = [f"{name.rpartition('.')[2]}={value}" for name, value in entry.varied.items() if name != field]
        weight = float(entry.varied[field] or 0)  # type: ignore[arg-type]
        learners.setdefault(" ".join([entry.name, *others]), {}).setdefault(weight, []).append(entry)
    figure, panels = _panels(list(learners), "steps of meta-training")
    for name, axis in panels.items():
        by_weight = dict(sorted(learners[name].items()))
        for number, (weight, entries) in enumerate(by_weight.items(), 1):
            seeds = pd.concat([points[e].set_index("step")["meta_val/score"] for e in entries], axis=1)
            colour = looks[entries[0].label]["color"] if weight else "black"
            strength = number / len(by_weight) if weight else 1
            mean = seeds.mean(axis=1)
            axis.plot(mean, color=colour, alpha=strength, linestyle="-" if weight else "--", label=f"weight {weight:g}")
            axis.fill_between(mean.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, linewidth=0)
        axis.legend(frameon=False, fontsize=7)
    _from_zero(figure)
    return figure


def _from_zero(figure: Figure) -> None:
    """Let the shared axes of all panels begin at 0. A limit that is set stays, so this comes after all is drawn."""
    figure.axes[0].set_xlim(left=0)
    figure.axes[0].set_ylim(bottom=0)


def _panels(names: list[str], along: str) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each name, all on one scale."""
    across = min(4, len(names))
    down = -(-len(names) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(max(4, 2.6 * across), 2.3 * down), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, name in zip(axes.flat, names, strict=False):
        axis.set_title(name, fontsize=9)
        plain(axis)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel(along, fontsize=9)
    figure.supylabel("meta-val score", fontsize=9)
    return figure, dict(zip(names, axes.flat, strict=False))


COSTS = {"state_floats": "state floats after a stream", "flops": "FLOPs to read an example and answer a query"}


def pareto(rows: pd.DataFrame, looks: Looks) -> Figure:
    """Score against state and against arithmetic; the line is the front: nobody on it is beaten by one that costs no more.

    rows: as of `standings`, of one family.
    """
    rows = with_flops(rows)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, (cost, name) in zip(axes, COSTS.items(), strict=True):
        for row in rows.to_dict("records"):
            look = looks[row["learner"]]
            error = [[row["score"] - row["low"]], [row["high"] - row["score"]]]
            axis.errorbar(
                row[cost], row["score"], yerr=error, color=look["color"], marker=look["marker"], linestyle="none",
                label=row["learner"], capsize=2,
            )  # fmt: skip
        front = front_of(rows, cost)
        axis.plot(front[cost], front["score"], color="black", linewidth=1, drawstyle="steps-post", zorder=0)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: amount(cost)))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(name)
        plain(axis)
    axes[0].set_ylabel(f"meta-test {rows['metric'].iloc[0]}")
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def with_flops(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `flops`: arithmetic of one example and one query."""
    return rows.assign(flops=rows["support_flops"] + rows["query_flops"])


def front_of(rows: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The Pareto front of rows that stand best first: those that are better than everything that costs no more, cheapest first."""
    place = np.arange(len(rows))
    order = np.lexsort((place, rows[cost].to_numpy()))
    leads = place[order] < np.minimum.accumulate(np.concatenate([[len(rows)], place[order][:-1]]))
    return rows.iloc[order[leads]]


def transfers(rows: pd.DataFrame) -> Figure:
    """Scores by what learners were trained on and what they were asked about, a panel a learner. rows: as of `transfers`."""
    names = list(rows["learner"].unique())
    families = list(rows["asked_on"].unique())
    side = 0.9 * len(families)
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=((side + 0.6) * len(names) + 1, side + 1.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    high = rows["score"].max()
    for axis, name in zip(axes.flat, names, strict=True):
        scores = rows[rows["learner"] == name].pivot(index="trained_on", columns="asked_on", values="score")
        scores = scores.reindex(index=families, columns=families)
        axis.imshow(scores, cmap="cividis", vmin=0, vmax=high)
        for (down, across), score in np.ndenumerate(scores.to_numpy()):
            if not np.isnan(score):
                ink = "black" if score > 0.6 * high else "white"
                axis.text(across, down, f"{score:.2f}", ha="center", va="center", color=ink, fontsize=9)
        axis.set_xticks(range(len(families)), families, rotation=30, ha="right")
        axis.set_yticks(range(len(families)), families)
        axis.set_title(name, fontsize=9)
    figure.supxlabel("asked about new classes of", fontsize=9)
    figure.supylabel("meta-trained on", fontsize=9)
    figure.colorbar(axes[0, 0].images[0], ax=axes, label=f"meta-test {rows['metric'].iloc[0]}")
    return figure


def importances(found: pd.DataFrame, looks: Looks) -> Figure:
    """How much of the search's outcome hangs on each field, a group of bars a field. found: as of `importances`, of one family."""
    fields, learners = list(found["field"].unique()), parts(found, "learner")
    figure, axis = plt.subplots(figsize=(7, 0.6 + 0.25 * len(fields) * (len(learners) + 1)), layout="constrained")
    height = 0.8 / len(learners)
    for number, (label, mine) in enumerate(learners.items()):
        at = [fields.index(field) + (number - (len(learners) - 1) / 2) * height for field in mine["field"]]
        hatch = None if number % 2 == 0 else "//"
        axis.barh(
            at, mine["importance"], height, color=looks[label]["color"], label=label, hatch=hatch, edgecolor="white"
        )
    axis.set_yticks(range(len(fields)), fields)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of importance on meta-val")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    plain(axis)
    return figure
