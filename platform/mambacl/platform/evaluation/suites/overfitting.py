"""Meta-overfitting: classes that were meta-trained on against classes that were not."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Overfitting(Suite):
    """Meta-test classes, and the classes of meta-train as they are in the data: the gap is what was learnt by heart."""

    axes: ClassVar = ("split",)
    own_family: ClassVar = True

    name: Literal["overfitting"] = "overfitting"

    def points(self, family: "Family", split: Split) -> list[Point]:
        return [
            Point.as_trained(family, split, {"split": split}),
            Point.as_trained(family, "meta_train", {"split": "meta_train"}, augmented=False),
        ]

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt

        from mambacl.platform.evaluation import figures

        figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
        figures.groups(axis, rows, "contestant", by="split")
        axis.set_ylabel(about.metric)
        axis.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        figure.suptitle(about.title)
        return {"overfitting": figure}

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        import pandas as pd

        from mambacl.platform.evaluation.statistics import gap
        from mambacl.platform.evaluation.tables import parts, sample, where

        gaps = []
        for label, mine in parts(rows, "contestant").items():
            found = gap(sample(where(mine, split="meta_train")), sample(mine.query("split != 'meta_train'")))
            gaps.append(
                {"contestant": label, "gap": found.score, "low": found.low, "high": found.high}
                | {"episodes": found.episodes, "classes": found.classes, "seeds": found.seeds}
            )
        return super().tables(rows, about) | {"gaps": pd.DataFrame(gaps)}
