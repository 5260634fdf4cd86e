"""The classes of a run's splits, as a file in its folder: with names, not only digests, splits can be made again elsewhere; with
hashes of their images, they are known again in other sources."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mambacl.tasks.config import Config, parse
from mambacl.tasks.family import Family
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.randomness import Split
from mambacl.tasks.sketches import hashes_in

FILE = "classes.json"
VERSION = 2
"""Of the file. The first had nothing by which classes are known again but their names."""


class SplitClasses(Config):
    """What one split draws from."""

    names: tuple[str, ...]
    """Of the classes."""
    domains: tuple[str, ...]
    """Of the domains; none where the source has none."""
    digest: str
    """SHA-256 of both."""
    first: tuple[int, ...] = ()
    """Of each class the number of its first image: the class itself, among images of the same digest."""
    sketches: tuple[str, ...] = ()
    """Of each class, by which it is known again elsewhere (`ImageBank.sketches`); none where that is not known."""


class Classes(Config):
    """What the splits of a task family draw from."""

    version: int = 1
    """Of the file it is read from: the first had none."""
    family: str
    """Name of the task family."""
    source: str
    """Where its images are, or the family's name again where it makes them."""
    digest: str
    """Of its images and splits, as in the family's spec."""
    images: str = ""
    """Digest of the source's images, whatever the splits."""
    splits: dict[Split, SplitClasses]


def classes_of(family: Family) -> Classes | None:
    """The classes of a family; None where examples are generated and there are none."""
    if not isinstance(family, ImageFamily):
        return None
    config, bank = family.config, family.bank
    name: str = config.name  # type: ignore[attr-defined]  # every family that can be built has one
    return Classes(
        version=VERSION,
        family=name,
        source=getattr(config, config.location) if config.location else name,
        digest=family.spec.digest,
        images=bank.digest,
        splits={
            split: SplitClasses(
                names=pool.names,
                domains=pool.domains,
                digest=pool.digest,
                first=tuple(bank.start[pool.classes].tolist()),
                sketches=tuple(bank.sketches[c] for c in pool.classes) if bank.sketches else (),
            )
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


Marks = Callable[[SplitClasses], list[set]]
"""What each class of a split is known by: two that have a mark in common are the same."""


def met(own: Classes, asked: Classes, split: Split, among: Sequence[Split]) -> tuple[dict[Split, np.ndarray], str]:
    """Which of the C asked classes of a split are among a model's own, (C,) bool for each of its splits; and why there may be more,
    or nothing."""
    by, doubt = _comparison(own, asked)
    if by is None:
        return {}, doubt
    marks = by(asked.splits[split])
    known: dict[Split, set] = {name: set().union(*by(own.splits[name])) for name in among if name in own.splits}
    found: dict[Split, np.ndarray] = {
        name: np.array([not mark.isdisjoint(its) for mark in marks]) for name, its in known.items()
    }
    return found, doubt


def _comparison(own: Classes, asked: Classes) -> tuple[Marks | None, str]:
    """By what the classes of two families are compared, and what remains unknown all the same."""
    if own.version < 2:
        return _by_name, "told by their names alone: its run kept no hashes of images"
    if own.images == asked.images:
        return _by_place, ""
    if not (own.splits["meta_train"].sketches and asked.splits["meta_train"].sketches):
        return None, "unknown: one of the two sources was prepared when no hashes of images were kept"
    return _by_image, "told by images that are equal: the same ones resized or inverted are not known again"


def _by_name(split: SplitClasses) -> list[set]:
    return [{name} for name in split.names]


def _by_place(split: SplitClasses) -> list[set]:
    return [{number} for number in split.first]


def _by_image(split: SplitClasses) -> list[set]:
    return [set(hashes_in(sketch)) for sketch in split.sketches]


def beside(checkpoint: Path) -> Path:
    """The folder in which the classes of a checkpoint's run are: its own where they went with it, or else the run's."""
    checkpoint = checkpoint.resolve()
    in_run = checkpoint.parent.name == "checkpoints" and not (checkpoint / FILE).is_file()
    return checkpoint.parent.parent if in_run else checkpoint
