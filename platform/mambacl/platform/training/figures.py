"""Figures of one training run. They are not pyplot's, which would keep each one until it is closed."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mambacl.platform.evaluation.figures import PALETTE


def learning_curve(curve: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Training loss and selectivity, and meta-val score, against steps."""
    points = pd.DataFrame(curve).set_index("step")
    # A sweep draws one for each trial while it decides on the next: with matplotlib's own layout and ticks it took twice as long.
    figure = Figure(figsize=(10, 3.4))
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "right": 0.98, "bottom": 0.15, "top": 0.82})
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
        axis.locator_params(nbins=4)
        if axis.lines:  # a run of a few steps has no point of its loss
            axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def expert_use(use: Sequence[Sequence[Sequence[float]]], title: str) -> Figure:
    """Share of a task's queries that goes to an expert, a panel a layer: use[layer][task position][expert]."""
    figure = Figure(figsize=(4.5 * len(use), 3.2), layout="constrained")
    axes = figure.subplots(1, len(use), squeeze=False)
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
