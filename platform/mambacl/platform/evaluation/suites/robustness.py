"""Streams with the flaws of real ones: other orders, unequal shots, wrong labels, queries of classes never seen."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite
from mambacl.tasks.randomness import Split
from mambacl.tasks.stream_config import StreamConfig

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family

FLAWS: dict[str, dict[str, Any]] = {
    "blocked": {},
    "shuffled": {"order": "shuffled"},
    "revisits": {"order": "revisits"},
    "unequal shots": {"uneven": 0.6},
    "10 % wrong labels": {"label_noise": 0.1},
    "30 % wrong labels": {"label_noise": 0.3},
    "unknown classes": {"open_set": 5},
}
"""What differs from a plain stream, by the name that it has in tables."""


class Robustness(Suite):
    """Flawed streams: shuffled, with revisits, unequal shots, wrong labels, and queries of classes that it does not have."""

    axes: ClassVar = ("stream",)

    name: Literal["robustness"] = "robustness"

    def points(self, family: "Family", split: Split) -> list[Point]:
        points = [
            Point.as_trained(family, split, {"stream": name}, stream=StreamConfig(**flaw))
            for name, flaw in FLAWS.items()
            if not flaw.get("open_set") or family.spec.output == "classification"
        ]
        return [point for point in points if point.fits(family)]

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt

        from mambacl.platform.evaluation import figures

        has_unknown = "auroc" in rows
        figure, axes = plt.subplots(
            1, 1 + has_unknown, figsize=(6 + 4 * has_unknown, 4.2), squeeze=False, layout="constrained",
            width_ratios=[2, 1][: 1 + has_unknown],
        )  # fmt: skip
        figures.groups(axes[0, 0], rows, "stream")
        axes[0, 0].set_ylabel(about.metric)
        figures.legend(figure, axes[0, 0])
        if has_unknown:
            axis = axes[0, 1]
            figures.bars(axis, rows.dropna(subset=["auroc"]), figures.styles(rows), "auroc")
            axis.axvline(0.5, color="black", linestyle=":", linewidth=1)
            axis.set_xlim(0.4, 1)
            axis.set_xlabel("unknown classes told apart\n(area under the ROC curve; dotted: a guess)")
        figure.suptitle(about.title)
        return {"robustness": figure}

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        from mambacl.platform.evaluation.tables import score_table

        found = super().tables(rows, about)
        if "auroc" in rows:
            unknown = rows.dropna(subset=["auroc"])
            found["unknown_classes"] = score_table(unknown, (), True, "auroc").rename(columns={"score": "auroc"})
        return found
