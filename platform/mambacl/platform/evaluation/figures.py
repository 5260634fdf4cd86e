"""Figures of evaluations and training curves. A learner has the same colour in every figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mambacl.platform.evaluation.statistics import interval

# Okabe and Ito's palette: told apart by readers with any kind of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label; references are grey."""
    trained = [label for label in labels if label not in REFERENCES]
    chosen = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(trained)}
    return chosen | {label: "#888888" for label in labels if label in REFERENCES}


REFERENCES = ("nearest_mean",)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    return path


def standard(results: pd.DataFrame, title: str) -> Figure:
    """Score of each contestant with its interval, and along the stream: the score of each task position."""
    labels = list(dict.fromkeys(results["contestant"]))
    colour = colours(labels)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=[1, 1.6])
    for row, label in enumerate(labels):
        mine = results.query("contestant == @label")
        found = interval(mine["score"].to_numpy())
        left.barh(row, found.score, color=colour[label])
        left.errorbar(
            found.score, row, xerr=[[found.score - found.low], [found.high - found.score]], color="black", capsize=3
        )
        positions = pd.DataFrame(mine["by_task"].tolist()).mean()
        right.plot(positions.index + 1, positions, color=colour[label], label=label, marker=".")
    chance = 1 / results["tasks"].iloc[0]
    for axis, line in ((left, left.axvline), (right, right.axhline)):
        line(chance, color="black", linestyle=":", linewidth=1)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_yticks(range(len(labels)), labels)
    left.invert_yaxis()
    left.set_xlabel("accuracy (dotted: chance)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("task position in the stream")
    right.set_ylabel("accuracy")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    return figure


def length(results: pd.DataFrame, trained: Mapping[str, int], title: str) -> Figure:
    """Score against tasks at the trained number of shots, and against shots at the trained number of tasks."""
    labels = list(dict.fromkeys(results["contestant"]))
    colour = colours(labels)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axis, varied, fixed in zip(axes, ("tasks", "shots"), ("shots", "tasks"), strict=True):
        rows = results.query(f"{fixed} == {trained[fixed]}")
        for label in labels:
            _curve(axis, rows.query("contestant == @label"), varied, label, colour[label])
        axis.axvline(trained[varied], color="black", linestyle=":", linewidth=1)
        axis.set_xscale("log")
        ticks = sorted(set(rows[varied]))
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(f"{varied} (dotted: as meta-trained), {trained[fixed]} {fixed}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy")
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    return figure


def _curve(axis: Axes, rows: pd.DataFrame, varied: str, label: str, colour: str) -> None:
    points = [(size, interval(group["score"].to_numpy())) for size, group in rows.groupby(varied)]
    sizes = [int(size) for size, _ in points]  # type: ignore[call-overload]
    axis.plot(sizes, [point.score for _, point in points], color=colour, label=label, marker=".")
    axis.fill_between(
        sizes, [p.low for _, p in points], [p.high for _, p in points], color=colour, alpha=0.2, linewidth=0
    )


def learning_curve(curve: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Training loss and selectivity, and meta-val score, against steps."""
    points = pd.DataFrame(curve).set_index("step")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    for column, colour, name in (("train/loss", PALETTE[0], "loss"), ("train/selectivity", PALETTE[1], "selectivity")):
        if column in points:
            left.plot(points[column].dropna(), color=colour, label=name)
    for column, colour, name in (
        ("meta_val/score", PALETTE[0], "meta-val score"),
        ("meta_val/score_seen", PALETTE[2], "among seen codes"),
        ("meta_val/true_mass", PALETTE[1], "true mass"),
    ):
        if column in points:
            right.plot(points[column].dropna(), color=colour, label=name, marker=".")
    for axis, name in ((left, "meta-train"), (right, "meta-val")):
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, y=1.04)
    return figure
