"""Tables as people read them: figures with their intervals in one column, and places as a range."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

LONG = 12
"""Rows from which on a table is folded."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Text of a table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def long(self) -> bool:
        return len(self.rows) > LONG


def readable(title: str, frame: pd.DataFrame) -> Table:
    """A table of results as people read it: `score`, `low` and `high` become 0.512 [0.500, 0.524], as do
    `NAME`, `NAME_low` and `NAME_high`, and `best_place`, `worst_place` become 1-3."""
    columns: dict[str, list[str]] = {}
    for name in frame:
        low, high = (f"{name}_low", f"{name}_high") if f"{name}_low" in frame else ("low", "high")
        after = list(frame)[list(frame).index(name) + 1 :][:2]
        if after == [low, high]:
            columns[f"{_words(name)} [95 %]"] = [
                f"{cell(middle)} [{cell(a)}, {cell(b)}]"
                for middle, a, b in zip(frame[name], frame[low], frame[high], strict=True)
            ]
        elif name == "best_place":
            columns["place"] = [places(*pair) for pair in zip(frame[name], frame["worst_place"], strict=True)]
        elif name not in ("low", "high", "worst_place") and not str(name).endswith(("_low", "_high")):
            columns[_words(name)] = [cell(value) for value in frame[name]]
    return Table(title, list(columns), list(zip(*columns.values(), strict=True)))


def places(best: float, worst: float) -> str:
    """The places that a learner may truly have."""
    return f"{best:.0f}" if best == worst else f"{best:.0f}–{worst:.0f}"


def cell(value: Any) -> str:
    """A value as text, a missing one as nothing."""
    if isinstance(value, float):
        if pd.isna(value):
            return ""
        whole = value == round(value) and abs(value) > 1
        return f"{value:,.0f}" if whole or abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _words(name: Any) -> str:
    return str(name).replace("_", " ")
