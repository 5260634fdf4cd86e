"""Forgetting: what becomes of the first tasks while later ones are read."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite, needs
from mambacl.tasks.randomness import Split
from mambacl.tasks.stream_config import StreamConfig

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Forgetting(Suite):
    """All queries so far after each task of one stream: a matrix of task and time, and how much is lost by the end."""

    measure: ClassVar = "forgetting"

    name: Literal["forgetting"] = "forgetting"

    def points(self, family: "Family", split: Split) -> list[Point]:
        if family.config.tasks < 2:
            raise needs("forgetting", "at least 2 tasks in an episode")
        if family.config.noise and family.config.noise.site != "pixel":
            raise needs("forgetting", "a family without noise behind the encoder, which streams do not have")
        return [Point.as_trained(family, split, stream=StreamConfig())]

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        from mambacl.platform.evaluation.tables import score_table

        names = {"score": "forgetting"}
        return {
            "scores": score_table(rows, (), about.higher_is_better),
            "forgetting": score_table(rows, (), False, "forgetting").rename(columns=names),
            "forgetting_among_seen": score_table(rows, (), False, "forgetting_seen").rename(columns=names),
            "matrices": _matrices(rows, about.tasks),
        }

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        return {"forgetting": _curves(rows, about), "forgetting_matrices": _panels(rows, about)}


def _matrices(rows: "pd.DataFrame", tasks: int) -> "pd.DataFrame":
    """A row for each contestant, task and time: the score with its interval. Tasks and times count from 1."""
    import pandas as pd

    from mambacl.platform.evaluation.statistics import interval
    from mambacl.platform.evaluation.tables import matrix, parts

    found = []
    for label, mine in parts(rows, "contestant").items():
        cells = pd.DataFrame(mine["matrix"].tolist(), index=mine.index)
        for after in range(tasks):
            for task in range(after + 1):
                own = mine[["seed", "episode"]].assign(score=cells[after * tasks + task])
                score = interval(matrix(own))
                found.append(
                    {"contestant": label, "task": task + 1, "after": after + 1}
                    | {"score": score.score, "low": score.low, "high": score.high}
                    | {"episodes": score.episodes, "seeds": score.seeds}
                )
    return pd.DataFrame(found)


def _curves(rows: "pd.DataFrame", about: "About") -> "Figure":
    """The first task, and all tasks so far, against the tasks read; and what is lost by the end."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts

    style = figures.styles(rows)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for label, mine in parts(rows, "contestant").items():
        mean = np.stack(list(mine["matrix_seen"])).mean(0).reshape(about.tasks, about.tasks)
        read = np.arange(1, about.tasks + 1)
        axes[0].plot(read, mean[:, 0], **style[label], label=label, markersize=4)
        axes[1].plot(read, np.nanmean(mean, axis=1), **style[label], markersize=4)
    for axis, name in ((axes[0], "the first task"), (axes[1], "all tasks so far")):
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("tasks read")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figures.plain(axis)
    axes[0].set_ylabel(f"{about.metric}{', among classes read so far' if about.higher_is_better else ''}")
    figures.bars(axes[2], rows, style, "forgetting")
    axes[2].set_title("forgotten by the end (among classes up to the own)", fontsize=10)
    axes[2].set_xlabel(f"loss of {about.metric}" if about.higher_is_better else f"rise of {about.metric}")
    figures.legend(figure, axes[0])
    figure.suptitle(about.title)
    return figure


def _panels(rows: "pd.DataFrame", about: "About") -> "Figure":
    """The matrices, a panel a contestant."""
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
        down,
        across,
        figsize=(3 * across + 1, 2.8 * down),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    most = max(float(np.nanmax(found)) for found in matrices.values())
    for axis, (label, found) in zip(axes.flat, matrices.items(), strict=False):
        edge = about.tasks + 0.5
        axis.imshow(found, cmap="cividis", vmin=0, vmax=most, extent=(0.5, edge, edge, 0.5))
        axis.set_title(label, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in list(axes.flat)[len(matrices) :]:
        axis.set_visible(False)
    figure.supxlabel("task", fontsize=10)
    figure.supylabel("tasks read", fontsize=10)
    figure.colorbar(axes[0, 0].images[0], ax=axes, label=about.metric)
    figure.suptitle(about.title)
    return figure
