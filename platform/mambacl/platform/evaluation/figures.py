"""What the figures of evaluations share. A learner has the same colour in every figure; references are grey."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mambacl.learners.registry import CONFIGS
from mambacl.platform.evaluation.statistics import interval
from mambacl.platform.evaluation.tables import parts, sample, where

# Okabe and Ito's palette: told apart by readers with any kind of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
REFERENCE = "#888888"
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LEARNERS = tuple(CONFIGS)
DPI = 150


def styles(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each contestant, in their order.

    The colour is the learner's, with another line for every eight learners; variants of one learner have other lines and markers,
    and so have references. rows: contestant, learner, trained.
    """
    kinds = rows.drop_duplicates("contestant")
    turns: Counter[str] = Counter()
    chosen = {}
    for label, learner, trained in zip(kinds["contestant"], kinds["learner"], kinds["trained"], strict=True):
        kind = learner if trained else "reference"
        number = LEARNERS.index(learner) if trained else 0
        chosen[label] = {
            "color": PALETTE[number % len(PALETTE)] if trained else REFERENCE,
            "linestyle": LINES[(number // len(PALETTE) + turns[kind]) % len(LINES)],
            "marker": MARKERS[turns[kind] % len(MARKERS)],
        }
        turns[kind] += 1
    return chosen


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    return path


def bars(axis: Axes, rows: pd.DataFrame, style: Mapping[str, Mapping[str, Any]], column: str = "score") -> None:
    """Score of each contestant with its interval, the first on top."""
    for place, (label, mine) in enumerate(parts(rows, "contestant").items()):
        found = interval(sample(mine, column))
        axis.barh(place, found.score, color=style[label]["color"])
        axis.errorbar(found.score, place, xerr=np.array([found.margins]).T, color="black", capsize=3)
    axis.set_yticks(range(len(style)), list(style))
    axis.invert_yaxis()
    plain(axis)


def dots(axis: Axes, rows: pd.DataFrame, columns: Mapping[str, str]) -> None:
    """Several columns of each contestant with their intervals, the first on top. columns: what each is called; the first has
    full marks, the others hollow ones."""
    style = styles(rows)
    for number, (column, name) in enumerate(columns.items()):
        look: dict[str, Any] = {"marker": MARKERS[number], "linestyle": "none"} | ({"mfc": "white"} if number else {})
        for place, (label, mine) in enumerate(parts(rows, "contestant").items()):
            found = interval(sample(mine, column))
            height = place + 0.3 * (number - (len(columns) - 1) / 2)
            axis.errorbar(
                found.score, height, xerr=np.array([found.margins]).T, color=style[label]["color"], capsize=3, **look
            )
        axis.plot([], [], color="black", label=name, **look)
    axis.set_yticks(range(len(style)), list(style))
    axis.set_ylim(len(style) - 0.5, -0.5)
    if len(columns) > 1:
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    plain(axis)


def curves(axis: Axes, rows: pd.DataFrame, along: str, log: bool = False, column: str = "score") -> None:
    """Score of each contestant with its interval against a coordinate of the points."""
    style = styles(rows)
    for label, mine in parts(rows, "contestant").items():
        points = {
            place: interval(sample(group, column)) for place, group in parts(mine.sort_values(along), along).items()
        }
        drawn = pd.DataFrame({"score": p.score, "low": p.low, "high": p.high} for p in points.values())
        axis.plot(list(points), drawn["score"], **style[label], label=label, markersize=4)
        shade(axis, list(points), drawn, style[label])
    ticks = sorted(rows[along].unique())
    if log:
        axis.set_xscale("log")
        axis.minorticks_off()
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    plain(axis)


def groups(axis: Axes, rows: pd.DataFrame, along: str, by: str = "contestant") -> None:
    """Bars with intervals in groups: a group for each value of `along`, a bar for each value of `by`."""
    style = styles(rows)
    names, members = list(rows[along].unique()), list(rows[by].unique())
    width = 0.8 / len(members)
    for number, member in enumerate(members):
        mine = where(rows, **{by: member})
        found = {name: interval(sample(part)) for name, part in parts(mine, along).items()}
        places = [names.index(name) + (number - (len(members) - 1) / 2) * width for name in found]
        look = style[member] if by == "contestant" else {"color": PALETTE[number % len(PALETTE)]}
        errors = np.array([f.margins for f in found.values()]).T
        axis.bar(places, [f.score for f in found.values()], width, color=look["color"], label=member, yerr=errors)
    axis.set_xticks(range(len(names)), [str(name) for name in names], rotation=30, ha="right")
    plain(axis)


def legend(figure: Figure, axis: Axes) -> None:
    """One legend for the whole figure, below it."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)


def shade(axis: Axes, places: Any, points: pd.DataFrame, style: Mapping[str, Any]) -> None:
    """The interval around a line. points: low, high."""
    axis.fill_between(places, points["low"], points["high"], color=style["color"], alpha=0.2, linewidth=0)


def plain(axis: Axes) -> None:
    """No frame where nothing is read off it."""
    axis.spines[["top", "right"]].set_visible(False)
