"""Config of Kimi delta attention."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class KdaConfig(MatrixConfig):
    """Kimi delta attention: a delta rule in which every key channel decays by itself."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.kda:KdaMixer"
    source: ClassVar[str] = "Kimi team, 2025"
    name: Literal["kda"] = "kda"
    """Which learner."""
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay * (1..16); 1 is that of language models."""
