"""The trained episode size: scores over the stream's codes and all codes, and along the stream."""

from typing import TYPE_CHECKING, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Standard(Suite):
    """Episodes as meta-trained: the score, overall and at each task position of the stream."""

    name: Literal["standard"] = "standard"

    def points(self, family: "Family", split: Split) -> list[Point]:
        return [Point.as_trained(family, split)]

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        from mambacl.platform.evaluation import figures
        from mambacl.platform.evaluation.tables import parts, positions

        style = figures.styles(rows)
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, max(3.6, 0.25 * len(style))), width_ratios=[1, 1.6], layout="constrained"
        )
        figures.bars(left, rows, style)
        for label, mine in parts(rows, "contestant").items():
            along = positions(mine)
            right.plot(along.index + 1, along["score"], **style[label], label=label, markersize=4)
            figures.shade(right, along.index + 1, along, style[label])
        if about.chance is not None:
            left.axvline(about.chance, color="black", linestyle=":", linewidth=1)
            right.axhline(about.chance, color="black", linestyle=":", linewidth=1)
        left.set_xlabel(f"{about.metric}{' (dotted: chance)' if about.chance else ''}")
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_xlabel("task position in the stream")
        right.set_ylabel(about.metric)
        right.set_ylim(bottom=0)
        right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.suptitle(about.title)
        return {"standard": figure}

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        import pandas as pd

        from mambacl.platform.evaluation.tables import parts, positions

        along = [
            positions(mine).assign(contestant=label).reset_index(names="task")
            for label, mine in parts(rows, "contestant").items()
        ]
        return super().tables(rows, about) | {"positions": pd.concat(along, ignore_index=True)}
