"""The code that goes along to a cluster: the source roots of a checkout, so that drivers and workers run what is edited here."""

import fnmatch
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mambacl.tasks.config import ConfigError

PARTS = ("platform", "learners", "tasks")
EXCLUDES = ("__pycache__", ".?*", "runs", "mlruns", "*.db", "*.npy", "*.npz", "*.parquet", "*.png", "*.pt", "*.safetensors",
            "*.tar", "*.zip")  # fmt: skip
"""Names of files and folders that stay: caches, .git and its like, runs, data. Ray reads them as in a .gitignore."""
LIMIT = 64 * 2**20
"""Bytes: many times the code, and far below the 512 MiB that Ray can take."""


def source_roots() -> list[Path]:
    """The folders platform/mambacl, learners/mambacl and tasks/mambacl that this process imports from; none where mambacl
    is installed as a wheel, or came along with a job."""
    roots = []
    for part in PARTS:
        spec = importlib.util.find_spec(f"mambacl.{part}")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        root = Path(spec.submodule_search_locations[0]).parent
        if root.parent.name == part:  # as in a checkout, and nowhere else
            roots.append(root)
    return roots


def code_of_checkout() -> dict[str, Any]:
    """What Ray's runtime environment says of the code; empty where workers use the package that they have installed.

    Raises ConfigError where there is more than ought to go along.
    """
    roots = source_roots()
    check_size(roots)
    return {"py_modules": [str(root) for root in roots], "excludes": list(EXCLUDES)} if roots else {}


def check_size(folders: list[Path]) -> int:
    """Bytes that go along. Raises ConfigError above the limit, with the largest files."""
    sizes = {file: file.stat().st_size for folder in folders for file in shipped(folder)}
    total = sum(sizes.values())
    if total > LIMIT:
        largest = sorted(sizes, key=lambda file: -sizes[file])[:3]
        raise ConfigError(
            f"submit: {total / 2**20:,.0f} MiB would go along, more than {LIMIT / 2**20:.0f} MiB; the largest are "
            + ", ".join(f"{file} ({sizes[file] / 2**20:,.1f} MiB)" for file in largest)
        )
    return total


def shipped(folder: Path) -> Iterator[Path]:
    """The files of a folder that go along."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _stays(name)]
        yield from (Path(place, name) for name in files if not _stays(name))


def _stays(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in EXCLUDES)
