"""Config of the MesaNet."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class MesaNetConfig(MatrixConfig):
    """MesaNet: every answer is that of a ridge regression from keys to values over the stream."""

    similar: ClassVar[bool] = True
    implementation: ClassVar[str] = "mambacl.learners.mixers.mesanet:MesaNetMixer"
    source: ClassVar[str] = "von Oswald et al., 2025"
    name: Literal["mesanet"] = "mesanet"
    """Which learner."""
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay * (1..16); 1 is that of language models."""
    ridge: Annotated[float, Field(gt=0.25)] = 1.0
    """Initial regularisation of every key channel; it is learned, and stays above 0.25."""
