"""Config of the Mamba-2 learner."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class Mamba2Config(MatrixConfig):
    """Mamba-2: a selective state-space model with one decay a head, computed as products of matrices."""

    similar: ClassVar[bool] = True
    implementation: ClassVar[str] = "mambacl.learners.mixers.mamba2:Mamba2Mixer"
    source: ClassVar[str] = "Dao and Gu, 2024"
    name: Literal["mamba2"] = "mamba2"
    """Which learner."""
    expand: Annotated[int, Field(ge=1)] = 2
    """Inner width E as a multiple of D."""
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay * (1..16); 1 is that of language models."""
    feed_forward: Annotated[float, Field(ge=0)] = 0.0
    """Width of a feed-forward part after the mixer, as a multiple of D; 0 for none, as in Mamba-2."""
