"""Config fields of the delta rules."""

from typing import Annotated, ClassVar

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class DeltaConfig(MatrixConfig):
    """A token erases what the state holds under its key before it writes."""

    similar: ClassVar[bool] = True
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay * (1..16); 1 is that of language models."""
    negative: bool = False
    """Let a token erase up to twice of what is held under its key, which turns it over (Grazzi et al., 2025)."""
    householders: Annotated[int, Field(ge=1, le=8)] = 1
    """Writes of a token, each under a key of its own: a product of so many reflections a token (Siems et al., 2025)."""
