"""A task family: a data source that makes numbered episodes."""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor

from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family_config import FamilyConfig
from mambacl.tasks.noise import Noise
from mambacl.tasks.noise_config import NoiseConfig
from mambacl.tasks.randomness import CHOOSING, SPLITS, Split
from mambacl.tasks.stream import Layout
from mambacl.tasks.stream_config import StreamConfig

UNLIMITED = 1_000_000
"""How many tasks and examples a generator has."""

FEWEST = 2
"""Tasks of an episode on which something is chosen."""

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

    @property
    def domains(self) -> dict[Split, tuple[str, ...]]:
        """The domains of each split; empty where the source has none."""
        return {}

    def varied(
        self,
        *,
        tasks: int | None = None,
        shots: int | None = None,
        queries: int | None = None,
        stream: StreamConfig | None = None,
        noise: NoiseConfig | None = None,
    ) -> Self:
        """The same data and splits with episodes of another size, stream or noise; data are shared, not copied."""
        given = {"tasks": tasks, "shots": shots, "queries": queries, "stream": stream, "noise": noise}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.spec.output == "classification":
            changes["vocabulary"] = self.config.codes
        return self._with(config=self.config.model_copy(update=changes))

    def unaugmented(self) -> Self:
        """The same family with meta-train examples as they are in the data: what is asked to see whether they were learnt
        by heart."""
        return self

    def fitted(self, split: Split) -> Self:
        """The same family with episodes as long as a split's classes allow: those of meta-val and meta-confirm may be fewer
        than an episode has tasks."""
        most = self.limits(split)["tasks"]
        return self if self.config.tasks <= most else self.varied(tasks=most)

    def asked_classes(self, split: Split, indices: Sequence[int]) -> np.ndarray | None:
        """The class of each task that episodes ask about (B, K), numbered within the source, in the order of the queries; None
        where tasks are no classes that could come again."""
        return None

    def among(self, split: Split, classes: Sequence[int]) -> Self:
        """The same family with these classes of a split alone, numbered as in `asked_classes`."""
        raise ConfigError(f"task: {self.config.name} has no classes")  # type: ignore[attr-defined]

    def in_domains(self, split: Split, domains: Sequence[str]) -> Self:
        """The same family with a split's classes seen in these domains; classes with too few images there are left out."""
        raise ConfigError(f"task: {self.config.name} has no domains")  # type: ignore[attr-defined]

    def _with(self, **attributes: Any) -> Self:
        other = copy.copy(self)
        for name, value in attributes.items():
            setattr(other, name, value)
        return other

    def check(self, asked: Split | None = None) -> Self:
        """Raise ConfigError unless every split can serve an episode; of meta-val and meta-confirm shorter ones will do, unless
        they are `asked`. The message says what there is."""
        config, stream = self.config, self.config.stream
        if config.streamed > config.codes:
            needed = "the tasks of a stream," if config.streamed > config.tasks else "tasks ="
            raise ConfigError(f"task.vocabulary: must be at least {needed} {config.streamed}, got {config.codes}")
        if stream.open_set and self.spec.output != "classification":
            raise ConfigError(f"task.stream.open_set: needs label codes, the task is {self.spec.output}")
        for split in SPLITS:
            limits = self.limits(split)
            shorter = split in CHOOSING and split != asked
            least = min(FEWEST, config.tasks) if shorter else config.tasks
            if least > limits["tasks"]:
                extra = config.drawn - config.tasks
                raise ConfigError(
                    f"task.tasks: {split} has {limits['tasks'] + extra} classes, an episode needs {least + extra}"
                )
            most = config.shot_range[1]
            if most + config.queries > limits["images"]:
                small = self.small_classes(split, most + config.queries)
                more = f" and {len(small) - LISTED} more" if len(small) > LISTED else ""
                raise ConfigError(
                    f"task.shots: the smallest class of {split} has {limits['images']} images, an episode needs "
                    f"{most} shots + {config.queries} queries; too small: {', '.join(small[:LISTED])}{more}; "
                    "task.drop_small_classes leaves them out"
                )
        return self

    @property
    def variant(self) -> str:
        """What else than size, data and splits decides the episodes; empty by default. Part of the digest in `spec`."""
        stream, noise = self.config.stream, self.config.noise
        parts = ["" if stream == StreamConfig() else f" {stream.model_dump_json(exclude_defaults=True)}"]
        return "".join(parts + ([] if noise is None else [f" {noise.model_dump_json()}"]))

    def assemble(self, layout: Layout, x: Tensor, y: Tensor, split: Split, indices: Sequence[int]) -> Episode:
        """Episodes of inputs (B, N, *shape) and targets (B, N) or (B, N, size) in their places, with the noise of the config."""
        episode = layout.episode(x, y, indices, self.spec.output)
        if self.config.noise is None:
            return episode
        noise = Noise(self.config.noise, self.config.seed, split)
        if noise.site != "pixel":
            return dataclasses.replace(episode, noise=noise)
        add = noise.add_to_images if self.spec.input == "image" else noise.add
        support_x, query_x = add(episode.support_x, episode.query_x, episode.index)
        return dataclasses.replace(episode, support_x=support_x, query_x=query_x)
