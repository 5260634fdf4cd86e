"""Figures of evaluations and training curves. A learner has the same colour in every figure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


REFERENCE = "#888888"
LINES = ("-", "--", ":", "-.")


def styles(results: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour and line of each contestant, in their order; references are grey. No two are alike up to 32 learners."""
    trained = dict(zip(results["contestant"], results["trained"], strict=True))
    count = Counter()
    chosen = {}
    for label, is_trained in trained.items():
        number = count[is_trained]
        count[is_trained] += 1
        colour, turn = (PALETTE[number % len(PALETTE)], number // len(PALETTE)) if is_trained else (REFERENCE, number)
        chosen[label] = {"color": colour, "linestyle": LINES[turn % len(LINES)]}
    return chosen


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    return path


def standard(results: pd.DataFrame, title: str) -> Figure:
    """Score of each contestant with its interval, and along the stream: the score of each task position."""
    style = styles(results)
    labels = list(style)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, max(3.6, 0.25 * len(labels))), width_ratios=[1, 1.6], layout="constrained"
    )
    for row, label in enumerate(labels):
        mine = results.query("contestant == @label")
        found = interval(mine["score"].to_numpy())
        left.barh(row, found.score, color=style[label]["color"])
        left.errorbar(
            found.score, row, xerr=[[found.score - found.low], [found.high - found.score]], color="black", capsize=3
        )
        positions = pd.DataFrame(mine["by_task"].tolist()).mean()
        right.plot(positions.index + 1, positions, **style[label], label=label, marker=".")
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
    style = styles(results)
    labels = list(style)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axis, varied, fixed in zip(axes, ("tasks", "shots"), ("shots", "tasks"), strict=True):
        rows = results.query(f"{fixed} == {trained[fixed]}")
        for label in labels:
            _curve(axis, rows.query("contestant == @label"), varied, label, style[label])
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


def _curve(axis: Axes, rows: pd.DataFrame, varied: str, label: str, style: Mapping[str, Any]) -> None:
    points = [(size, interval(group["score"].to_numpy())) for size, group in rows.groupby(varied)]
    sizes = [int(size) for size, _ in points]  # type: ignore[call-overload]
    axis.plot(sizes, [point.score for _, point in points], **style, label=label, marker=".")
    axis.fill_between(
        sizes, [p.low for _, p in points], [p.high for _, p in points], color=style["color"], alpha=0.2, linewidth=0
    )


def ranking(rows: pd.DataFrame) -> Figure:
    """Scores with their intervals, best on top; references in grey.

    rows: learner, score, low, high, steps.
    """
    figure, axis = plt.subplots(figsize=(7, 0.3 * len(rows) + 0.8))
    for place, row in enumerate(rows.to_dict("records")):
        score, low, high = row["score"], row["low"], row["high"]
        axis.barh(place, score, color=PALETTE[0] if row["steps"] else REFERENCE)
        axis.errorbar(score, place, xerr=[[score - low], [high - score]], color="black", capsize=2)
        axis.text(high, place, f"  {100 * score:.1f}", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), rows["learner"])
    axis.invert_yaxis()
    axis.set_xlabel(f"meta-test accuracy, 95 % intervals over {rows['episodes'].iloc[0]} episodes; grey: references")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def curves(points: Mapping[str, pd.DataFrame], rows: pd.DataFrame) -> Figure:
    """Meta-val score against CPU time, a panel a learner, best first, with all others behind it in grey.

    points: each learner's curve; rows: learner, score.
    """
    labels = [label for label in rows["learner"] if label in points]
    across = min(4, len(labels))
    down = -(-len(labels) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(2.6 * across, 2.1 * down), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    lines = {
        label: points[label].dropna(subset=["meta_val/score"]).set_index("train/cpu_seconds")["meta_val/score"]
        for label in labels
    }
    for axis, label in zip(axes.flat, labels, strict=False):
        for line in lines.values():
            axis.plot(line.index / 60, line, color="#cccccc", linewidth=0.8)
        axis.plot(lines[label].index / 60, lines[label], color=PALETTE[0], linewidth=2)
        axis.set_title(label, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
    for axis in list(axes.flat)[len(labels) :]:
        axis.set_visible(False)
    figure.supxlabel("CPU minutes of meta-training", fontsize=9)
    figure.supylabel("meta-val score", fontsize=9)
    return figure


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


def expert_use(use: Sequence[Sequence[Sequence[float]]], title: str) -> Figure:
    """Share of a task's queries that goes to an expert, a panel a layer: use[layer][task position][expert]."""
    figure, axes = plt.subplots(1, len(use), figsize=(4.5 * len(use), 3.2), squeeze=False, layout="constrained")
    most = max(share for layer in use for row in layer for share in row)
    for number, (axis, layer) in enumerate(zip(axes.flat, use, strict=True)):
        shares = pd.DataFrame(layer).T
        tasks = shares.shape[1]
        axis.imshow(
            shares, cmap="cividis", vmin=0, vmax=most, aspect="auto", extent=(0.5, tasks + 0.5, len(shares) + 0.5, 0.5)
        )
        axis.set_title(f"layer {number}")
        axis.set_xlabel("task position in the stream")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("expert")
    figure.colorbar(axes[0, 0].images[0], ax=axes, label="share of the queries")
    figure.suptitle(title)
    return figure
