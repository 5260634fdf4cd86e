"""Config of the recall family."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mambacl.tasks.family_config import FamilyConfig


class RecallConfig(FamilyConfig):
    """Associative recall: each task is a random key with a label code, and queries are the keys (Arora et al., 2023)."""

    name: Literal["recall"] = "recall"
    """Which task family."""
    tasks: Annotated[int, Field(ge=1)] = 16
    shots: Annotated[int, Field(ge=1)] = 1
    dimensions: Annotated[int, Field(ge=1)] = 64
    """Numbers of a key; at least as many as an episode has keys, which are orthogonal."""
    reassign: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the keys that had another label code earlier in the stream: the last one is right."""

    @property
    def reassigned(self) -> int:
        """Keys with two label codes."""
        return round(self.reassign * self.tasks)

    @property
    def streamed(self) -> int:
        return super().streamed + self.reassigned

    @property
    def keys(self) -> int:
        """Different keys of an episode."""
        return self.drawn - self.reassigned

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.keys > self.dimensions:
            raise ValueError(f"dimensions: must be at least the {self.keys} keys of an episode, got {self.dimensions}")
        return self
