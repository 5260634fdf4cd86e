"""Selectivity: which examples of the stream queries read (the paper's Figure 3), a transformer's beside Mamba's."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite, needs, task_after_task
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mambacl.learners.learner import Learner
    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family

NOTE = (
    "A layer's map alone does not explain accuracy: what it reads was mixed by the layers before it,\n"
    "so that a learner may be right with little of a layer's weight on the own class."
)
"""Stands above all maps."""

SHOWN = (1 / 20, 9 / 20, 18 / 20)
"""Tasks whose queries are drawn by default: of 20 those that the paper shows, counted from 0."""


class Selectivity(Suite):
    """Association maps: the examples that queries read, how much of it is of their own class, and how that fades with distance.

    The map of one layer does not explain accuracy; `layers` asks for more.
    """

    measure: ClassVar = "associations"
    axes: ClassVar = ("layer",)
    columns: ClassVar = ("mass", "mass_regularised", "entropy")
    demand: ClassVar = "a learner with association maps of these layers"

    name: Literal["selectivity"] = "selectivity"
    layers: tuple[int, ...] = (-1,)
    """Layers, counted from the last where negative."""
    queries: tuple[int, ...] | None = None
    """Tasks, counted from 0, whose first query has its map drawn; by default 1, 9 and 18 of 20, and so on for other numbers."""

    def takes(self, learner: "Learner") -> bool:
        return learner.layers >= max(abs(layer) + (layer >= 0) for layer in self.layers)

    def points(self, family: "Family", split: Split) -> list[Point]:
        tasks = family.config.tasks
        if wrong := [task for task in self.queries or () if not 0 <= task < tasks]:
            raise needs("selectivity", f"queries of tasks 0 to {tasks - 1}, got {wrong[0]}")
        return [task_after_task("selectivity", family, split, {"layer": layer}, layer=layer) for layer in self.layers]

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        from mambacl.platform.evaluation.tables import interval_table

        return super().tables(rows, about) | {"selectivity": interval_table(rows, self.axes, self.columns)}

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        from mambacl.platform.evaluation.tables import where

        found = {}
        for layer in self.layers:
            mine, name = where(rows, layer=layer), "" if len(self.layers) == 1 else f"_layer_{layer}"
            title = f"{about.title}, {'last layer' if layer == -1 else f'layer {layer}'}"
            found[f"selectivity{name}"] = _mass(mine, about, title)
            found[f"selectivity_maps{name}"] = _maps(mine, about, title, self.queries)
        return found


def _mass(rows: "pd.DataFrame", about: "About", title: str) -> "Figure":
    """Mass on the own task, true and as regularised, how even the true weights are, and mass against how many tasks ago."""
    import matplotlib.pyplot as plt

    from mambacl.platform.evaluation import figures

    labels = rows["contestant"].nunique()
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, max(4, 0.45 * labels + 1.6)), width_ratios=[1.2, 0.8, 1.2], layout="constrained"
    )
    figures.dots(left, rows, {"mass": "true weights", "mass_regularised": "scores that are regularised"})
    left.axvline(1 / about.tasks, color="black", linestyle=":", linewidth=1)
    left.set_xlabel("share on the own task (dotted: even)")
    left.set_xlim(left=0)
    figures.dots(middle, rows, {"entropy": "true weights"})
    middle.set_xlabel("entropy of the true weights\n(1: even over all examples)")
    middle.set_yticks([])
    middle.set_xlim(0, 1.02)
    _against_distance(right, rows, about)
    figures.legend(figure, right)
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr]  # the one of `layout`
    figure.suptitle(f"{title}\n{NOTE}", fontsize=10)
    return figure


def _against_distance(axis: "Axes", rows: "pd.DataFrame", about: "About") -> None:
    """True weight on the own task against how many tasks were read since, a line a contestant."""
    from matplotlib.ticker import MaxNLocator

    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts, positions

    style = figures.styles(rows)
    for label, mine in parts(rows, "contestant").items():
        along = positions(mine, "mass_by_task")
        since = about.tasks - 1 - along.index
        axis.plot(since, along["score"], **style[label], label=label, markersize=4)
        figures.shade(axis, since, along, style[label])
    axis.axhline(1 / about.tasks, color="black", linestyle=":", linewidth=1)
    axis.set_xlabel("tasks read since the own task")
    axis.set_ylabel("share of the true weight\non the own task (dotted: even)")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.plain(axis)


def _maps(rows: "pd.DataFrame", about: "About", title: str, queries: tuple[int, ...] | None) -> "Figure":
    """What queries read in the first episode; their own task is shaded."""
    import matplotlib.pyplot as plt

    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts

    first = {label: mine["map"].iloc[0] for label, mine in parts(rows.sort_values("episode"), "contestant").items()}
    style = figures.styles(rows)
    tasks = queries or sorted({min(about.tasks - 1, round(share * about.tasks)) for share in SHOWN})
    figure, axes = plt.subplots(
        len(first), len(tasks), figsize=(3.6 * len(tasks), 1.5 * len(first) + 1), squeeze=False, sharex=True,
        sharey="row", layout="constrained",
    )  # fmt: skip
    for line, label in zip(axes, style, strict=True):
        weights = first[label].reshape(about.tasks, -1)
        shots = weights.shape[1] // about.tasks
        for axis, task in zip(line, tasks, strict=True):
            own = slice(task * shots, (task + 1) * shots)
            axis.bar(range(weights.shape[1]), weights[task], width=1, color=style[label]["color"])
            axis.axvspan(own.start - 0.5, own.stop - 0.5, color="#dddddd", zorder=0)
            axis.set_title(f"{weights[task, own].sum():.0%} on its own task", loc="right", fontsize=8)
            figures.plain(axis)
        line[0].set_ylabel(label.replace(" ", "\n"), fontsize=8)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.set_title(f"query of task {task}", loc="left", fontsize=9)
    figure.supxlabel("example of the stream, counted from 0 like the tasks", fontsize=9)
    figure.supylabel("share of the true weight", fontsize=9)
    figure.suptitle(f"{title}, first episode (shaded: own task)\n{NOTE}", fontsize=10)
    return figure
