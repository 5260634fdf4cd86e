"""Config of the Performer."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class PerformerConfig(MatrixConfig):
    """Performer: random features whose products estimate softmax attention."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.performer:PerformerMixer"
    source: ClassVar[str] = "Choromanski et al., 2021"
    name: Literal["performer"] = "performer"
    """Which learner."""
    state_size: Annotated[int, Field(ge=1, le=1024)] = 64
    """K, random features of a head, which stand in the place of its keys (the ancestors took 128)."""
    key_width: Annotated[int, Field(ge=1)] | None = None
    """P, width of a head's queries and keys before the features; by default that of its values."""
    redraw: Annotated[int, Field(ge=0)] = 0
    """Training steps after which the features are drawn anew; 0 keeps those that are saved with the weights."""
