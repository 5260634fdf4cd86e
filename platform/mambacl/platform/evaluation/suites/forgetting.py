"""Forgetting: what becomes of the first tasks while later ones are read."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite, needs, task_after_task
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Forgetting(Suite):
    """All queries so far after each task of one stream: a matrix of task and time, and how much is lost by the end."""

    measure: ClassVar = "forgetting"
    columns: ClassVar = ("forgetting", "forgetting_seen")

    name: Literal["forgetting"] = "forgetting"

    def points(self, family: "Family", split: Split) -> list[Point]:
        if family.config.tasks < 2:
            raise needs("forgetting", "at least 2 tasks in an episode")
        return [task_after_task("forgetting", family, split)]

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        from mambacl.platform.evaluation.tables import interval_table, score_table

        names = {"score": "forgetting", "low": "forgetting_low", "high": "forgetting_high"}
        fixed = score_table(rows, (), False, "forgetting").rename(columns=names)
        seen = interval_table(rows, (), ["forgetting_seen"]).drop(columns=["episodes", "seeds"])
        matrices = _matrices(rows, about.tasks)
        return super().tables(rows, about) | {"forgetting": fixed.merge(seen, on="contestant"), "matrices": matrices}

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        return {"forgetting": _curves(rows, about), "forgetting_matrices": _panels(rows, about)}


def _matrices(rows: "pd.DataFrame", tasks: int) -> "pd.DataFrame":
    """A row for each contestant, task and time: the score with its interval. Tasks and times count from 1."""
    import pandas as pd

    from mambacl.platform.evaluation.tables import parts, positions

    found = []
    for label, mine in parts(rows, "contestant").items():
        scores = positions(mine, "matrix")
        place = {"task": scores.index % tasks + 1, "after": scores.index // tasks + 1}
        found.append(pd.DataFrame({"contestant": label, **place}).join(scores.reset_index(drop=True)))
    return pd.concat(found, ignore_index=True)


def _curves(rows: "pd.DataFrame", about: "About") -> "Figure":
    """The first task, one in the middle, and all tasks so far, against the tasks read; and what is lost by the end."""
    import matplotlib.pyplot as plt
    import numpy as np

    from mambacl.platform.evaluation import figures

    K, classes = about.tasks, about.higher_is_better
    seen = np.stack(list(rows["matrix_seen"])).reshape(-1, K, K)
    middle = K // 2
    followed = {
        "task 1": seen[:, :, 0],
        f"task {middle + 1}": seen[:, :, middle],
        "all tasks so far": np.nanmean(seen, axis=2),
    }
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for axis, (name, scores) in zip(axes.flat, followed.items(), strict=False):
        _along(axis, rows.assign(followed=list(scores)), about)
        axis.set_title(name, fontsize=10)
    columns = {"forgetting": "among classes up to the own", "forgetting_seen": "among classes read so far"}
    figures.dots(axes[1, 1], rows, columns if classes else {"forgetting": "mean of tasks"})
    axes[1, 1].axvline(0, color="black", linewidth=0.5)
    axes[1, 1].set_xlabel(f"{'loss' if classes else 'rise'} of {about.metric} by the end")
    figure.supylabel(f"{about.metric}{', among classes read so far (dotted: chance)' if classes else ''}", fontsize=10)
    figures.legend(figure, axes[0, 0])
    figure.suptitle(about.title)
    return figure


def _along(axis: "Axes", rows: "pd.DataFrame", about: "About") -> None:
    """What is followed against the tasks read, a line a contestant."""
    from matplotlib.ticker import MaxNLocator

    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts, positions

    style = figures.styles(rows)
    for label, mine in parts(rows, "contestant").items():
        found = positions(mine, "followed", by_class=False)
        axis.plot(found.index + 1, found["score"], **style[label], label=label, markersize=4)
        figures.shade(axis, found.index + 1, found, style[label])
        if about.chance is not None:
            axis.plot(found.index + 1, 1 / (found.index + 1), color="black", linestyle=":", linewidth=1)
    axis.set_xlabel("tasks read")
    axis.set_ylim(bottom=0)
    axis.set_xlim(0.5, about.tasks + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.plain(axis)


def _panels(rows: "pd.DataFrame", about: "About") -> "Figure":
    """The matrices, a panel a contestant: means over episodes and seeds."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    from mambacl.platform.evaluation.tables import parts

    matrices = {
        label: np.stack(list(mine["matrix"])).mean(0).reshape(about.tasks, about.tasks)
        for label, mine in parts(rows, "contestant").items()
    }
    across = min(4, len(matrices))
    down = -(-len(matrices) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(3 * across + 1, 2.8 * down + 0.4), squeeze=False, layout="constrained"
    )
    most = max(float(np.nanmax(found)) for found in matrices.values())
    for number, (axis, (label, found)) in enumerate(zip(axes.flat, matrices.items(), strict=False)):
        edge = about.tasks + 0.5
        axis.imshow(found, cmap="cividis", vmin=0, vmax=most, extent=(0.5, edge, edge, 0.5))
        axis.set_title(label, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.tick_params(labelbottom=number + across >= len(matrices), labelleft=number % across == 0)
    for axis in list(axes.flat)[len(matrices) :]:
        axis.set_visible(False)
    figure.supxlabel("task", fontsize=10)
    figure.supylabel("tasks read", fontsize=10)
    among = ", among classes up to the own" if about.higher_is_better else ""
    figure.colorbar(axes[0, 0].images[0], ax=axes, label=f"{about.metric}{among}")
    figure.suptitle(about.title)
    return figure
