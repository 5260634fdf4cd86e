"""Cost: what a learner takes of time and memory on this machine, in training, on whole episodes and along a long stream."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.suite import Suite
from mambacl.tasks.randomness import Split

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mambacl.platform.evaluation.about import About
    from mambacl.tasks.family import Family

SIZE = ["parameters", "core_parameters", "active_parameters", "support_flops", "query_flops"]
RATES = {"training_episodes_per_second": "training", "inference_episodes_per_second": "inference"}
LATENCIES = {"ms_per_example": "milliseconds to read a new example", "ms_per_query": "milliseconds to answer a query"}
BYTES = {"state_bytes": "bytes of state"}


class CostSuite(Suite):
    """Episodes a second in training and inference; latency, state and memory along a stream of up to so many examples."""

    measure: ClassVar = "cost"

    name: Literal["cost"] = "cost"
    examples: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (10, 100, 1000, 10_000, 100_000)
    """Lengths of the stream; the examples of an episode come again and again."""
    seconds: Annotated[float, Field(gt=0)] = 30
    """That reading to one length, or asking there, may take; what takes longer is left out, and the table says so."""

    @property
    def settings(self) -> dict[str, Any]:
        return {"examples": sorted(set(self.examples)), "seconds": self.seconds}

    def points(self, family: "Family", split: Split) -> list[Point]:
        return [Point.as_trained(family, split)]

    def figures(self, rows: "pd.DataFrame", about: "About") -> "dict[str, Figure]":
        import matplotlib.pyplot as plt

        from mambacl.platform.evaluation import figures

        device = ", ".join(rows["device"].unique())
        along, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
        for axis, (column, title) in zip(axes, (LATENCIES | BYTES).items(), strict=True):
            _against_length(axis, rows, column)
            axis.set_title(title, fontsize=10)
        axes[1].set_xlabel(
            f"examples read before; a line ends where more would take over {self.seconds:g} s, or too much memory"
        )
        figures.legend(along, axes[0])
        along.suptitle(f"{about.title}, one stream; median and quartiles\n{device}", fontsize=10)

        labels = rows["contestant"].nunique()
        whole, axes = plt.subplots(1, 2, figsize=(11, 1.6 + 0.3 * labels), sharey=True, layout="constrained")
        for axis, (column, title) in zip(axes, RATES.items(), strict=True):
            _rates(axis, rows.drop_duplicates("contestant"), column)
            axis.set_xlabel(f"{title}, episodes a second")
        axes[0].invert_yaxis()
        whole.suptitle(
            f"{about.title}, {rows['batch'].iloc[0]} episodes together; median and quartiles\n{device}", fontsize=10
        )
        return {"streaming": along, "episodes_per_second": whole}

    def tables(self, rows: "pd.DataFrame", about: "About") -> "dict[str, pd.DataFrame]":
        whole = ["contestant", *SIZE, *_with_bounds(RATES), "training_bytes", "batch", "device"]
        along = ["contestant", "examples", *_with_bounds(LATENCIES), "state_bytes", "state_floats", "peak_bytes"]
        return {
            "cost": rows.drop_duplicates("contestant").reindex(columns=whole),
            "streaming": rows.reindex(columns=[*along, "not_run", "device"]),
        }


def _with_bounds(columns: dict[str, str]) -> list[str]:
    return [column + end for column in columns for end in ("", "_low", "_high")]


def _against_length(axis: "Axes", rows: "pd.DataFrame", column: str) -> None:
    """A line a contestant, on logarithmic axes."""
    from mambacl.platform.evaluation import figures
    from mambacl.platform.evaluation.tables import parts, where

    style = figures.styles(rows)
    for label, mine in parts(where(rows, not_run=""), "contestant").items():
        axis.plot(mine["examples"], mine[column], **style[label], label=label, markersize=4)
        if f"{column}_low" in mine:
            bounds = mine.assign(low=mine[f"{column}_low"], high=mine[f"{column}_high"])
            figures.shade(axis, mine["examples"], bounds, style[label])
    axis.set_xscale("log")
    axis.set_yscale("log")
    figures.plain(axis)


def _rates(axis: "Axes", rows: "pd.DataFrame", column: str) -> None:
    """A bar a contestant, the first on top."""
    from mambacl.platform.evaluation import figures

    style = figures.styles(rows)
    for place, row in enumerate(rows.to_dict("records")):
        middle, low, high = (row.get(column + end, float("nan")) for end in ("", "_low", "_high"))
        if middle != middle:
            axis.text(0, place, " not trained", va="center", fontsize=8)
            continue
        axis.barh(place, middle, color=style[row["contestant"]]["color"])
        axis.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color="black", capsize=3)
        text = f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
        axis.annotate(text, (high, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), rows["contestant"])
    axis.margins(x=0.12)
    figures.plain(axis)
