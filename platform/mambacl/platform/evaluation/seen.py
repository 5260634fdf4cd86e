"""Which of the classes that are asked about the models have met before: trained on, or chosen or promoted on.

Shapes: C classes of the split that is asked.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mambacl.platform.console import console
from mambacl.platform.evaluation.contestant import built_family
from mambacl.platform.evaluation.point import Point
from mambacl.platform.tracking import classes
from mambacl.platform.tracking.classes import Classes, SplitClasses
from mambacl.platform.tracking.registry import Reference
from mambacl.tasks.config import ConfigError
from mambacl.tasks.family import FEWEST
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.images_config import ImageFamilyConfig
from mambacl.tasks.randomness import SPLITS, Split
from mambacl.tasks.registry import TaskConfig

if TYPE_CHECKING:
    from mambacl.platform.evaluation.suites.suite import Suite

MET: tuple[Split, ...] = tuple(split for split in SPLITS if split != "meta_test")
"""Splits whose classes are no test: weights, or a choice, came of them."""

LISTED = 5
"""Names in a message."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Classes of a split that are asked about together."""

    task: TaskConfig
    """With episodes as long as there are classes."""
    name: str = ""
    """`seen` or `new`; empty for the whole split."""
    numbers: tuple[int, ...] | None = None
    """Of the classes, within their source; None for the whole split."""

    @property
    def title(self) -> str:
        """What is added to the titles of tables."""
        return {"": "", "seen": ", classes met before", "new": ", new classes"}[self.name]

    def points(self, suite: "Suite", split: Split) -> list[Point]:
        """The suite's points, as far as these classes go. Raises ConfigError where they cannot serve the suite."""
        family = built_family(self.task)
        if self.numbers is None:
            return suite.points(family, split)
        points = suite.points(family.among(split, self.numbers), split)
        return [
            point.model_copy(update={"classes": self.numbers}) if point.split == split else point for point in points
        ]


@dataclasses.dataclass(frozen=True)
class Acquaintance:
    """What one model has met of the classes of a split."""

    found: Mapping[Split, np.ndarray]
    """(C,) bool, by the split in which it met them."""
    doubt: str = ""
    """Why it may have met more; empty where it has not."""


def parts_of(
    models: Sequence[tuple[str, Reference]], task: TaskConfig, split: Split, allow_seen: bool
) -> tuple[list[Part], dict[str, str]]:
    """The classes of a split in parts, those that any of the models has met and those that none has; the whole split where
    none was met. And what is not known for sure, by the label of the model.

    Raises ConfigError where classes were met, unless they are allowed. A part with too few classes for an episode is left out,
    and the console says so.
    """
    family = built_family(task)
    if not isinstance(family, ImageFamily):
        return [Part(task)], {}
    asked = classes.classes_of(family)
    assert asked is not None
    known = [(label, _acquaintance(reference, asked, split)) for label, reference in models]
    doubts = {label: one.doubt for label, one in known if one.doubt}
    numbers = family.classes[split]
    by_split: dict[Split, np.ndarray] = {met: np.zeros(len(numbers), bool) for met in MET}
    for _, one in known:
        for met, mask in one.found.items():
            by_split[met] |= mask
    seen = np.any(list(by_split.values()), axis=0)
    if not seen.any():
        return [Part(task)], doubts
    if not allow_seen:
        raise _refusal(known, by_split, asked.splits[split], split)
    parts, fewest = [], min(FEWEST, task.tasks)
    for name, mask in (("seen", seen), ("new", ~seen)):
        own = tuple(numbers[mask].tolist())
        most = family.among(split, own).limits(split)["tasks"]
        if most < fewest:
            console.print(f"{name} classes of {split} are left out: {len(own)}, where an episode needs {fewest}")
            continue
        parts.append(Part(task.model_copy(update={"tasks": min(task.tasks, most)}), name, own))
    if not parts:
        raise ConfigError(f"on: {split} has too few classes for an episode of seen ones, and of new ones")
    return parts, doubts


def _acquaintance(reference: Reference, asked: Classes, split: Split) -> Acquaintance:
    """What a model has met of the asked split, as far as it can be told."""
    of_images = isinstance(reference.checkpoint.config.task, ImageFamilyConfig)
    if not of_images or reference.checkpoint.progress.spec.digest == asked.digest:
        return Acquaintance({})
    own = classes.read(classes.beside(reference.checkpoint.path))
    if own is None:
        return Acquaintance({}, f"unknown: its run kept no {classes.FILE}")
    wanted = asked.splits[split]
    if own.images == asked.images and own.splits[split].digest == wanted.digest:
        return Acquaintance({})  # its own meta-test, of streams or noise that it was not trained on
    return Acquaintance(*classes.met(own, asked, split, MET))


def _refusal(
    known: Sequence[tuple[str, Acquaintance]],
    by_split: Mapping[Split, np.ndarray],
    asked: SplitClasses,
    split: Split,
) -> ConfigError:
    """What was met, by whom and where, and what to do."""
    seen = np.any(list(by_split.values()), axis=0)
    who = ", ".join({label: None for label, one in known if any(mask.any() for mask in one.found.values())})
    where = ", ".join(f"{met} {mask.sum()}" for met, mask in by_split.items() if mask.any())
    names = [asked.names[place] for place in np.flatnonzero(seen)[:LISTED]]
    told = "".join({f", {one.doubt}": None for _, one in known if one.found and one.doubt})
    return ConfigError(
        f"on: {who} met {seen.sum()} of the {len(seen)} classes of {split} before ({where}), such as {', '.join(names)}{told}; "
        "allowed: new classes, as the same data have them with the task.seed of training, or --allow_seen, which asks about both apart"
    )
