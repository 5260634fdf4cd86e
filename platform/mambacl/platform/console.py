"""What commands print: people read tables and lines, programs read one JSON object."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
"""Plain lines when standard output is no terminal. Brackets are text: mambacl[encoders] is no markup."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers stand to the right, and names and intervals such as 0.51 [0.50, 0.52] on one line."""
    drawn = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    for number, column in enumerate(columns):
        figures = rows and all(isinstance(row[number], int | float) for row in rows)
        whole = number == 0 or figures or any("[" in str(row[number]) for row in rows)
        drawn.add_column(column, justify="right" if figures else "left", no_wrap=bool(whole))
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    console.print(drawn)


def json_line(content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON object as a line of standard output."""
    sys.stdout.flush()
    print(json.dumps(content), flush=True)


def amount(number: float, unit: str = "") -> str:
    """A large number in thousands, millions, ...: 5.09 M."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 1000 or prefix == "E":
            return f"{number:.3g} {prefix}{unit}".rstrip()
        number /= 1000
    raise AssertionError


def settings(fields: Mapping[str, Any]) -> str:
    """Fields with their values: `penalty=0.01 unit=True`."""
    return " ".join(f"{name}={value}" for name, value in fields.items())


SIZES = ("parameters", "in the\nblocks", "active", "state\nfloats", "FLOPs an\nexample", "FLOPs a\nquery")
"""Columns of what a learner costs."""


def size_cells(counts: Mapping[str, int]) -> list[int | str]:
    """What stands in the columns SIZES; counts: the fields of a `Size`."""
    whole = (counts[name] for name in ("parameters", "core_parameters", "active_parameters", "state_floats"))
    return [*whole, *(amount(counts[name]) for name in ("support_flops", "query_flops"))]


def sizes(counts: Mapping[str, int]) -> str:
    """What a learner costs, on one line; counts: the fields of a `Size`."""
    return (
        f"{amount(counts['parameters'])} parameters ({amount(counts['core_parameters'])} in the blocks, "
        f"{amount(counts['active_parameters'])} active for one token), {amount(counts['state_floats'], 'floats')} of state, "
        f"{amount(counts['support_flops'], 'FLOPs')} a support example, {amount(counts['query_flops'], 'FLOPs')} a query"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"{value:,}"
