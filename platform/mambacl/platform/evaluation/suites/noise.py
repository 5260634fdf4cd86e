"""Gaussian noise on what learners read: where, on which examples, how strong (METHOD of the paper's noise experiment)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite
from mambacl.tasks.noise_config import NoiseConfig, Site, Target
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family


class NoiseSuite(Suite):
    """Noise on pixels or encoded examples, in the stream, in the queries or in both, from none to ten standard deviations."""

    axes: ClassVar = ("site", "target", "strength")

    name: Literal["noise"] = "noise"
    sites: tuple[Site, ...] = ("encoder_out", "pixel")
    """Where it is added. At `token`, references cannot take part."""
    targets: tuple[Target, ...] = ("support", "query", "both")
    """On which examples."""
    strengths: tuple[float, ...] = (0.25, 0.5, 1, 2, 4, 6, 8, 10)
    """Standard deviations of the noise, in those of each dimension; none is added to them."""

    def points(self, family: "Family", split: Split) -> list[Point]:
        clean = Point.as_trained(family, split, {"site": "none", "target": "none", "strength": 0.0})
        noisy = [
            Point.as_trained(
                family,
                split,
                {"site": site, "target": target, "strength": float(strength)},
                noise=NoiseConfig(site=site, target=target, strength=strength),
            )
            for site in self.sites
            for target in self.targets
            for strength in self.strengths
        ]
        return [clean, *noisy]

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt
        import pandas as pd

        from mambacl.platform.evaluation import figures
        from mambacl.platform.evaluation.tables import where

        clean = where(rows, site="none")
        figure, axes = plt.subplots(
            len(self.sites), len(self.targets), sharex=True, sharey=True, squeeze=False, layout="constrained",
            figsize=(3.4 * len(self.targets), 2.8 * len(self.sites)),
        )  # fmt: skip
        for line, site in zip(axes, self.sites, strict=True):
            for axis, target in zip(line, self.targets, strict=True):
                noisy = where(rows, site=site, target=target)
                figures.curves(axis, pd.concat([clean, noisy], ignore_index=True), "strength")
                axis.set_xscale("symlog", linthresh=0.25)
                axis.set_xticks([0, 0.25, 1, 4, 10], ["0", "¼", "1", "4", "10"])
                axis.minorticks_off()
                axis.set_title(f"{site}, {target if target != 'both' else 'support and query'}", fontsize=9)
        axes[-1, len(self.targets) // 2].set_xlabel(
            "noise, in standard deviations of each dimension of the clean stream\n(signal-to-noise: 1 / its square)"
        )
        figure.supylabel(about.metric)
        figures.legend(figure, axes[0, 0])
        figure.suptitle(about.title)
        return {"noise": figure}

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        scores = super().tables(rows, about)["scores"]
        power = scores["strength"] ** 2
        return {"scores": scores.assign(signal_to_noise=(1 / power.where(power > 0)))}
