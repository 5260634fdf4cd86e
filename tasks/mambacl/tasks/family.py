"""A task family: a data source that makes numbered episodes."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family_config import FamilyConfig
from mambacl.tasks.randomness import SPLITS, Split

LISTED = 10
"""Names in a message; there may be thousands."""


class Family(ABC):
    """Episodes of one source at one size. Episode number i of a split is always the same, in any order, anywhere."""

    spec: Spec

    def __init__(self, config: FamilyConfig) -> None:
        self.config = config

    @abstractmethod
    def episodes(self, split: Split, indices: Sequence[int]) -> Episode:
        """The episodes with these numbers, as one batch. Raises ConfigError where the split is too small for them."""

    @abstractmethod
    def limits(self, split: Split) -> dict[str, int]:
        """How long the episodes of a split may be: most `tasks`, and most `images` a task (shots and queries together)."""

    def small_classes(self, split: Split, images: int) -> list[str]:
        """Classes of a split that have fewer images than this, smallest first, as `name (images)`."""
        return []

    def resized(self, tasks: int | None = None, shots: int | None = None, queries: int | None = None) -> Self:
        """The same family and splits at another episode size; data are shared, not copied."""
        sizes = {"tasks": tasks, "shots": shots, "queries": queries}
        config = self.config.model_copy(update={name: size for name, size in sizes.items() if size is not None})
        other = copy.copy(self)
        other.config = config.model_copy(update={"vocabulary": self.config.codes})
        return other

    def check(self) -> Self:
        """Raise ConfigError unless every split can serve an episode; the message says what there is."""
        config = self.config
        if config.tasks > config.codes:
            raise ConfigError(f"task.vocabulary: must be at least tasks = {config.tasks}, got {config.codes}")
        for split in SPLITS:
            limits = self.limits(split)
            if config.tasks > limits["tasks"]:
                raise ConfigError(f"task.tasks: {split} has {limits['tasks']} classes, an episode needs {config.tasks}")
            if config.shots + config.queries > limits["images"]:
                small = self.small_classes(split, config.shots + config.queries)
                more = f" and {len(small) - LISTED} more" if len(small) > LISTED else ""
                raise ConfigError(
                    f"task.shots: the smallest class of {split} has {limits['images']} images, an episode needs "
                    f"{config.shots} shots + {config.queries} queries; too small: {', '.join(small[:LISTED])}{more}; "
                    "task.drop_small_classes leaves them out"
                )
        return self
