"""Longer and shorter streams than meta-trained: more and fewer tasks, more and fewer shots."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite, needs
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class Length(Suite):
    """More and fewer tasks, more and fewer shots than meta-trained, as far as classes, images and label codes go."""

    axes: ClassVar = ("tasks", "shots")

    name: Literal["length"] = "length"
    tasks: tuple[int, ...] = (5, 10, 20, 30, 50, 75, 100)
    """Tasks, at the trained number of shots."""
    shots: tuple[int, ...] = (1, 2, 5, 10, 15, 20, 30, 50)
    """Shots, at the trained number of tasks."""

    def points(self, family: "Family", split: Split) -> list[Point]:
        config, limits = family.config, family.limits(split)
        sizes = {
            (config.tasks, config.shots): None,
            **{(tasks, config.shots): None for tasks in self.tasks},
            **{(config.tasks, shots): None for shots in self.shots},
        }
        points = [
            Point.as_trained(family, split, {"tasks": tasks, "shots": shots}, tasks=tasks, shots=shots)
            for tasks, shots in sizes
        ]
        points = [point for point in points if point.fits(family)]
        if len(points) < 2:
            others = [size for size in sizes if size != (config.tasks, config.shots)]
            wanted = " or ".join(f"{tasks} tasks x {shots} shots" for tasks, shots in others[:1] + others[-1:])
            raise needs(
                "length",
                f"another size than the trained one, such as {wanted}; {split} has {limits['tasks']} tasks within "
                f"{config.codes} label codes and {limits['images']} images a class for shots and {config.queries} queries",
            )
        return points

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt

        from mambacl.platform.evaluation import figures
        from mambacl.platform.evaluation.tables import where

        figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
        trained = {"tasks": about.tasks, "shots": about.shots}
        for axis, varied, fixed in zip(axes, ("tasks", "shots"), ("shots", "tasks"), strict=True):
            figures.curves(axis, where(rows, **{fixed: trained[fixed]}), varied, log=True)
            axis.axvline(trained[varied], color="black", linestyle=":", linewidth=1)
            axis.set_xlabel(f"{varied} (dotted: as meta-trained), {trained[fixed]} {fixed}")
        axes[0].set_ylabel(about.metric)
        axes[0].set_ylim(bottom=0)
        axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.suptitle(about.title)
        return {"length": figure}
