"""Config fields that every task family has."""

from typing import Annotated

from pydantic import Field

from mambacl.tasks.config import Config


class FamilyConfig(Config):
    """Size of an episode and the seed of its data."""

    tasks: Annotated[int, Field(ge=1)] = 20
    """K, tasks (classes) of an episode."""
    shots: Annotated[int, Field(ge=1)] = 5
    """S, support examples a task."""
    queries: Annotated[int, Field(ge=1)] = 1
    """Q, queries a task."""
    vocabulary: Annotated[int, Field(ge=1)] | None = None
    """V, label codes; at least as many as the longest episode ever evaluated has tasks. Default: tasks."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of class splits and episodes: keep it to compare learners on the same data."""

    @property
    def codes(self) -> int:
        """V, the size of the label-code vocabulary."""
        return self.vocabulary or self.tasks
