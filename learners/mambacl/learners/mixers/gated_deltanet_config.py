"""Config of the gated delta network."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class GatedDeltaNetConfig(MatrixConfig):
    """Gated DeltaNet: a token erases what the state holds under its key before it writes."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.gated_deltanet:GatedDeltaNetMixer"
    source: ClassVar[str] = "Yang et al., 2025"
    name: Literal["gated_deltanet"] = "gated_deltanet"
    """Which learner."""
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay * (1..16); 1 is that of language models."""
