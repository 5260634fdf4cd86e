"""What is said of an evaluation: one JSON object, and tables for people."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mambacl.platform.console import SIZES, amount, console, settings, size_cells, table
from mambacl.platform.cost import Size, size_of
from mambacl.platform.evaluation.about import About
from mambacl.platform.evaluation.codes import BESIDE
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.statistics import interval, over, paired_difference
from mambacl.platform.evaluation.tables import parts, points_of, sample, where
from mambacl.platform.evaluation.tuned import chosen
from mambacl.tasks.registry import TaskConfig


def summarise(
    rows: pd.DataFrame,
    point: Point,
    task: TaskConfig,
    contestants: Sequence[Contestant],
    about: About,
    columns: Sequence[str] = (),
) -> dict[str, Any]:
    """Size, and score at a point, of the first contestant, of the other models and the references beside it, with paired
    differences from the first. columns: what is found beside the score."""
    rows = where(rows, **point.where)
    by_label = parts(rows, "contestant")
    distinct = list({contestant.label: contestant for contestant in contestants}.values())
    first, *others = distinct
    family, beside = built_family(task), f"score_{BESIDE[about.codes]}"

    def entry(contestant: Contestant) -> dict[str, Any]:
        own = by_label[contestant.label]
        result: dict[str, Any] = dataclasses.asdict(size_of(built_learner(contestant, task), family))
        if fields := chosen(contestant):
            result["chosen"] = fields
        if "score" not in rows:
            return result
        result |= dataclasses.asdict(interval(sample(own)))
        if beside in rows:
            result[beside] = sample(own, beside).score
        for column in columns:
            result |= interval(sample(own, column)).under(column)
        if contestant is not first:
            result |= paired_difference(sample(by_label[first.label]), sample(own)).under("difference")
        return result

    return {
        **entry(first),
        "label": first.label,
        "metric": about.metric,
        "codes": about.codes,
        "chance": about.chance,
        "lower_is_better": not about.higher_is_better,
        "models": {c.label: entry(c) for c in others if c.trained},
        "references": {c.label: entry(c) for c in others if not c.trained},
    }


def entries(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was found of each contestant, by label, the first model first."""
    return {summary["label"]: summary} | summary["models"] | summary["references"]


def show(summary: dict[str, Any], about: About, suite: str) -> None:
    """The table: a line a contestant, the first model first; its score, where the suite gives one, and its size."""
    if "score" not in summary:
        sizes = [[label, *size_cells(entry)] for label, entry in entries(summary).items()]
        table(f"{suite}: {about.title}", ["contestant", *SIZES], sizes)
        return
    classes, beside = about.higher_is_better, f"score_{BESIDE[about.codes]}"
    rows = []
    for label, entry in entries(summary).items():
        rows.append(
            [
                label,
                shown(entry, "score", "low", "high", classes),
                f"{100 * entry[beside]:.1f}" if beside in entry else "",
                shown(entry, "difference", "difference_low", "difference_high", classes, sign="+"),
                *size_cells(entry),
            ]
        )
    if about.chance is not None:
        rows.append(["chance", f"{100 * about.chance:.1f}", "", "", 0, 0, 0, 0, "0", "0"])
    table(
        f"{suite}: {about.title}, over {over(summary['seeds'], summary['classes'], summary['episodes'])}",
        [
            "contestant",
            f"{about.metric}{', %' if classes else ''} [95 %]",
            f"among {BESIDE[about.codes]}\ncodes" if classes else "",
            f"{summary['label']}\nminus this",
            *SIZES,
        ],
        rows,
    )
    _tell_chosen(summary)


def _tell_chosen(summary: dict[str, Any]) -> None:
    """What the references are at their best with."""
    told = [f"{label} {settings(entry['chosen'])}" for label, entry in entries(summary).items() if "chosen" in entry]
    if told:
        console.print(f"chosen on meta-val: {'; '.join(told)}", soft_wrap=True)


def show_points(scores: pd.DataFrame, contestants: Sequence[str], axes: Sequence[str], about: About) -> None:
    """A line a point, a column a contestant, as many tables as it takes for their width. scores: as of `score_table`."""
    points = points_of(scores, axes)
    rows = [where(scores, **point).set_index("contestant").to_dict("index") for point in points]
    columns = {
        label: [shown(row.get(label, {}), "score", "low", "high", about.higher_is_better) for row in rows]
        for label in contestants
    }
    widest = 1 + max(len(text) for label, cells in columns.items() for text in (label, *cells))
    at_once = max(1, (console.width - sum(len(axis) + 3 for axis in axes)) // widest)
    for first in range(0, len(contestants), at_once):
        some = list(contestants)[first : first + at_once]
        lines = [
            [*(str(place) for place in point.values()), *(columns[label][number] for label in some)]
            for number, point in enumerate(points)
        ]
        table("", [*axes, *some], lines)


def show_table(name: str, found: pd.DataFrame) -> None:
    """Any table. NAME_low and NAME_high stand behind NAME; a text that is the same in all rows stands in the title, and
    sizes, which `show` has, do not stand here again."""
    known = {field.name for field in dataclasses.fields(Size)} if "parameters" in found else set()
    columns, title = [], [name.replace("_", " ")]
    for column in found.columns:
        whole = column.removesuffix("_low").removesuffix("_high")
        if column in known or (whole != column and whole in found):
            continue
        values = set(found[column])
        if column != "contestant" and len(values) == 1 and isinstance(text := values.pop(), str):
            title += [text] if text else []
        else:
            columns.append(column)
    rows = [[_figure(row, column) for column in columns] for row in found.to_dict("records")]
    table(", ".join(title), [column.replace("_", " ") for column in columns], rows)


def _figure(row: Mapping[Any, Any], column: str) -> Any:
    """What a row has in a column, with its bounds if there are any; nothing where it was not measured."""
    value = row[column]
    if value != value:
        return ""
    if column.endswith("_bytes"):
        return amount(value, "B")
    if isinstance(value, str | int):
        return value
    middle, *bounds = (
        f"{part:,.0f}" if abs(part) >= 1000 else f"{part:.3g}"
        for part in (row[name] for name in (column, f"{column}_low", f"{column}_high") if name in row)
    )
    return f"{middle} [{', '.join(bounds)}]" if bounds else middle


def shown(entry: dict[str, Any], middle: str, low: str, high: str, percent: bool, sign: str = "") -> str:
    """`51.0 [50.1, 51.9]`, or nothing where it was not measured."""
    if middle not in entry:
        return ""
    if percent:
        return f"{100 * entry[middle]:{sign}.1f} [{100 * entry[low]:{sign}.1f}, {100 * entry[high]:{sign}.1f}]"
    return f"{entry[middle]:{sign}.4f} [{entry[low]:{sign}.4f}, {entry[high]:{sign}.4f}]"
