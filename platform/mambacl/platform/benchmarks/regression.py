"""Whether ratios have become worse since a stored result; times themselves say more of the machine than of the code."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambacl.platform.benchmarks.measure import RATIOS, Scope
from mambacl.platform.machine import processor
from mambacl.tasks.config import ConfigError


def read(path: Path, scope: Scope) -> dict[str, Any]:
    """A result that `--output` wrote, or that of a folder which is of this processor.

    Raises ConfigError where there is none, or only of another scope or processor: their ratios are others.
    """
    files, here, others = sorted(path.glob("*.json")) if path.is_dir() else [path], processor(), []
    for file in files:
        try:
            stored = json.loads(file.read_text())
            measured, there, _ = stored["scope"], stored["machine"]["processor"], stored["rows"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"against: {file} holds no result of mambacl bench ({type(error).__name__})") from None
        if there != here:
            others.append(there)
        elif measured != scope:
            raise ConfigError(f"against: {file} was measured in scope {measured!r}, this run is {scope!r}")
        else:
            return stored
    raise ConfigError(
        f"against: {path} has no result of this processor, {here!r}, but of {others}: make one here with --output"
    )


def fallen(found: dict[str, Any], stored: dict[str, Any], tolerance: float) -> dict[tuple[str, str], str]:
    """A line for each stored ratio that has become worse by more than the tolerance (0.2: a fifth), or is missing.

    By benchmark and what they are, of the benchmarks that were run now. The median of now is compared with the worse quartile
    of before, since few repetitions of some sides are far apart. A ratio whose target is an upper bound is the better the lower
    it is.
    """
    now, lines = _ratios(found["rows"]), {}
    for (benchmark, what), before in _ratios(stored["rows"]).items():
        if benchmark not in found["seconds"]:
            continue
        row = now.get((benchmark, what))
        if row is None or _worse(row["median"], before, tolerance):
            after = "not measured" if row is None else f"{row['median']:.3g}"
            lines[benchmark, what] = f"{benchmark}: {what}: {after} now, {before['median']:.3g} {before['unit']} before"
    return lines


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The measured ratios, by benchmark and what they are."""
    return {(row["benchmark"], row["what"]): row for row in rows if row["unit"] in RATIOS and row["median"] is not None}


def _worse(median: float, before: dict[str, Any], tolerance: float) -> bool:
    if (before["target"] or "").startswith("<"):
        return median > before["high"] * (1 + tolerance)
    return median < before["low"] * (1 - tolerance)
