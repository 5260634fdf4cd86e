"""The classes of a run's splits, as a file in its folder: with names, not only digests, splits can be made again elsewhere."""

import json
from pathlib import Path

from mambacl.tasks.config import Config, parse
from mambacl.tasks.family import Family
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.randomness import Split

FILE = "classes.json"


class SplitClasses(Config):
    """What one split draws from."""

    names: tuple[str, ...]
    """Of the classes."""
    domains: tuple[str, ...]
    """Of the domains; none where the source has none."""
    digest: str
    """SHA-256 of both."""


class Classes(Config):
    """What the splits of a task family draw from."""

    family: str
    """Name of the task family."""
    source: str
    """Where its images are, or the family's name again where it makes them."""
    digest: str
    """Of its images and splits, as in the family's spec."""
    splits: dict[Split, SplitClasses]


def classes_of(family: Family) -> Classes | None:
    """The classes of a family; None where examples are generated and there are none."""
    if not isinstance(family, ImageFamily):
        return None
    config = family.config
    name: str = config.name  # type: ignore[attr-defined]  # every family that can be built has one
    return Classes(
        family=name,
        source=getattr(config, config.location) if config.location else name,
        digest=family.spec.digest,
        splits={
            split: SplitClasses(names=pool.names, domains=pool.domains, digest=pool.digest)
            for split, pool in family.pools.items()
        },
    )


def write(folder: Path, family: Family) -> None:
    """Keep the classes of a family, where it has any, in a run's folder."""
    if found := classes_of(family):
        (folder / FILE).write_text(found.model_dump_json(indent=1))


def read(folder: Path) -> Classes | None:
    """The classes of a run's folder, or None."""
    path = folder / FILE
    return parse(Classes, json.loads(path.read_text())) if path.is_file() else None
