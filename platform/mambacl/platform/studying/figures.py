"""Figures of a study."""

from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mambacl.platform.evaluation.figures import PALETTE, REFERENCE


def ranking(rows: pd.DataFrame) -> Figure:
    """Scores with their intervals, best on top; references in grey.

    rows: learner, metric, score, low, high, episodes, steps.
    """
    figure, axis = plt.subplots(figsize=(7, 0.3 * len(rows) + 0.8))
    for place, row in enumerate(rows.to_dict("records")):
        score, low, high = row["score"], row["low"], row["high"]
        axis.barh(place, score, color=PALETTE[0] if row["steps"] else REFERENCE)
        axis.errorbar(score, place, xerr=[[score - low], [high - score]], color="black", capsize=2)
        text = f"  {100 * score:.1f}" if row["metric"] == "accuracy" else f"  {score:.4f}"
        axis.text(high, place, text, va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), rows["learner"])
    axis.invert_yaxis()
    axis.set_xlabel(
        f"meta-test {rows['metric'].iloc[0]}, 95 % intervals over {rows['episodes'].iloc[0]} episodes; grey: references"
    )
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
