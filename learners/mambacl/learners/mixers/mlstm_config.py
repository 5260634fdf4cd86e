"""Config of the mLSTM of xLSTM."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class MlstmConfig(MatrixConfig):
    """mLSTM: a matrix memory with exponential input gates."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.mlstm:MlstmMixer"
    source: ClassVar[str] = "Beck et al., 2024"
    name: Literal["mlstm"] = "mlstm"
    """Which learner."""
    expand: Annotated[int, Field(ge=1)] = 2
    """Inner width E as a multiple of D."""
    feed_forward: Annotated[float, Field(ge=0)] = 0.0
    """Width of a feed-forward part after the mixer, as a multiple of D; 0 for none, as in mLSTM blocks."""
