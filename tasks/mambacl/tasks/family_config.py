"""Config fields that every task family has."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.tasks.config import Config
from mambacl.tasks.noise_config import NoiseConfig
from mambacl.tasks.stream_config import StreamConfig

Objective = Literal["classification", "regression", "angle"]
"""What is answered, which decides targets, loss and metric: label codes, vectors, or (cos, sin) of an angle."""


class FamilyConfig(Config):
    """Size of an episode, what its stream is like, and the seed of its data."""

    location: ClassVar[str | None] = None
    """Name of the field that says where the data are; None where they are made."""

    tasks: Annotated[int, Field(ge=1)] = 20
    """K, tasks (classes) of an episode."""
    shots: Annotated[int, Field(ge=1)] = 5
    """S, support examples a task."""
    queries: Annotated[int, Field(ge=1)] = 1
    """Q, queries a task."""
    vocabulary: Annotated[int, Field(ge=1)] | None = None
    """V, label codes; at least as many as the longest episode ever evaluated has tasks. Default: as many as its stream has."""
    stream: StreamConfig = StreamConfig()
    """Order and flaws of the stream."""
    noise: NoiseConfig | None = None
    """Noise on what learners read, in every split; by default none."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of class splits and episodes: keep it to compare learners on the same data."""

    @property
    def output(self) -> Objective:
        """What is answered."""
        return "classification"

    @property
    def streamed(self) -> int:
        """Tasks that the stream has: those of the queries, and distractors."""
        return self.tasks + self.stream.distractors

    @property
    def drawn(self) -> int:
        """G, tasks that an episode takes from its split: those of the stream, and those that it does not have."""
        return self.streamed + self.stream.open_set

    @property
    def examples(self) -> int:
        """T, support examples of the stream."""
        return self.streamed * self.shots

    @property
    def codes(self) -> int:
        """V, the size of the label-code vocabulary."""
        return self.vocabulary or self.streamed

    @property
    def shot_range(self) -> tuple[int, int]:
        """Fewest and most shots of a task."""
        differ = math.floor(self.shots * self.stream.uneven + 1e-9)
        return max(1, self.shots - differ), self.shots + differ
