"""Domain shift: the meta-test classes in domains that were left out of meta-training, and in those that were not."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite, needs
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Shift(Suite):
    """Domains that meta-training never saw, together and one by one, and new classes in the domains that it did see."""

    axes: ClassVar = ("domain",)

    name: Literal["shift"] = "shift"

    def points(self, family: "Family", split: Split) -> list[Point]:
        seen, asked = (family.domains.get(name, ()) for name in ("meta_train", split))
        left_out = [name for name in asked if name not in seen]
        if not left_out:
            raise needs("shift", "a family with task.test_domains; for another family use --on")
        points = [Point.as_trained(family, split, {"domain": "all left out" if len(left_out) > 1 else left_out[0]})]
        if len(left_out) > 1:
            points += [Point.as_trained(family, split, {"domain": name}, domains=(name,)) for name in left_out]
        if getattr(family.config, "class_disjoint", True):  # otherwise the same images were trained on
            points.append(Point.as_trained(family, split, {"domain": "trained on"}, domains=seen))
        return [points[0], *(point for point in points[1:] if point.fits(family))]

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt

        from mambacl.platform.evaluation import figures

        figure, axis = plt.subplots(figsize=(3 + 1.6 * rows["domain"].nunique(), 4), layout="constrained")
        figures.groups(axis, rows, "domain")
        axis.set_ylabel(about.metric)
        figures.legend(figure, axis)
        figure.suptitle(about.title)
        return {"shift": figure}
