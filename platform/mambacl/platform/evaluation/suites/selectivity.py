"""Selectivity: which examples of the stream queries read (the paper's Figure 3), a transformer's beside Mamba's."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite, needs
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.learners.learner import Learner
    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family

SHOWN = (1 / 20, 9 / 20, 18 / 20)
"""Tasks whose queries are shown: of 20 the second, tenth and nineteenth, as in the paper (there counted from 0)."""


class Selectivity(Suite):
    """Association maps: the examples that queries read, how much of it is of their own class, and how that fades with distance."""

    measure: ClassVar = "associations"
    axes: ClassVar = ("layer",)

    name: Literal["selectivity"] = "selectivity"
    layers: tuple[int, ...] = (-1,)
    """Layers, counted from the last where negative."""

    def takes(self, learner: "Learner") -> bool:
        return learner.layers >= max(abs(layer) + (layer >= 0) for layer in self.layers)

    def points(self, family: "Family", split: Split) -> list[Point]:
        if family.config.stream.query_after != "end" or family.config.stream.open_set:
            raise needs("selectivity", "queries with an answer, asked at the end of the stream")
        return [Point.as_trained(family, split, {"layer": layer}, layer=layer) for layer in self.layers]

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        from mambacl.platform.evaluation.tables import score_table

        found = {"scores": score_table(rows, self.axes, about.higher_is_better)}
        for column, high in (("mass", True), ("mass_regularised", True), ("entropy", False)):
            found[column] = score_table(rows, self.axes, high, column).rename(columns={"score": column})
        return found

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        from mambacl.platform.evaluation.tables import where

        found = {}
        for layer in self.layers:
            mine, name = where(rows, layer=layer), "" if len(self.layers) == 1 else f"_layer_{layer}"
            found[f"selectivity{name}"] = _mass(mine, about, layer)
            found[f"selectivity_maps{name}"] = _maps(mine, about, layer)
        return found


def _mass(rows: "pd.DataFrame", about: "About", layer: int) -> "Figure":
    """Mass on the own task, true and as regularised, and against how many tasks ago it was."""
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd
    from matplotlib.ticker import MaxNLocator

    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts

    style = figures.styles(rows)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, max(3.6, 0.4 * len(style) + 1)), width_ratios=[1.2, 1], layout="constrained"
    )
    kinds = {
        "mass": "true weights",
        "mass_regularised": "scores of the regulariser",
        "entropy": "entropy of true weights",
    }
    tall = pd.concat([rows.assign(score=rows[column], kind=name) for column, name in kinds.items()], ignore_index=True)
    figures.groups(left, tall, "contestant", by="kind")
    left.axhline(1 / about.tasks, color="black", linestyle=":", linewidth=1)
    left.set_ylabel("share on the own task (dotted: even); entropy")
    left.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    for label, mine in parts(rows, "contestant").items():
        mean = np.stack(list(mine["mass_by_task"])).mean(0)
        right.plot(np.arange(len(mean))[::-1], mean, **style[label], label=label, markersize=4)
    right.axhline(1 / about.tasks, color="black", linestyle=":", linewidth=1)
    right.set_xlabel("tasks read since the own task")
    right.set_ylabel("share of the true weight on the own task")
    right.set_ylim(bottom=0)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.plain(right)
    figures.legend(figure, right)
    figure.suptitle(f"{about.title}, layer {layer}")
    return figure


def _maps(rows: "pd.DataFrame", about: "About", layer: int) -> "Figure":
    """What queries of an early, a middle and a late task read in the first episode; their own task is shaded."""
    import matplotlib.pyplot as plt

    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts

    first = {label: mine["map"].iloc[0] for label, mine in parts(rows.sort_values("episode"), "contestant").items()}
    style = figures.styles(rows)
    tasks = sorted({min(about.tasks - 1, round(share * about.tasks)) for share in SHOWN})
    figure, axes = plt.subplots(
        len(first), len(tasks), figsize=(3.6 * len(tasks), 1.5 * len(first) + 0.8), squeeze=False, sharex=True,
        sharey="row", layout="constrained",
    )  # fmt: skip
    for line, (label, weights) in zip(axes, first.items(), strict=True):
        weights = weights.reshape(about.tasks, -1)
        for axis, task in zip(line, tasks, strict=True):
            shots = weights.shape[1] // about.tasks
            axis.bar(range(weights.shape[1]), weights[task], width=1, color=style[label]["color"])
            axis.axvspan(task * shots - 0.5, (task + 1) * shots - 0.5, color="#dddddd", zorder=0)
            figures.plain(axis)
        line[0].set_ylabel(label.replace(" ", "\n"), fontsize=8)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.set_title(f"a query of task {task}", fontsize=9)
    figure.supxlabel("support example", fontsize=9)
    figure.supylabel("share of the true weight", fontsize=9)
    figure.suptitle(f"{about.title}, layer {layer}: what three queries read (shaded: their own task)", fontsize=10)
    return figure
