"""Config fields of the mixers whose state is a matrix a head."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mambacl.learners.mixers.convolved_config import ConvolvedConfig


class MatrixConfig(ConvolvedConfig):
    """A state of heads x state_size x (expand * width / heads) numbers."""

    heads: Annotated[int, Field(ge=1)] = 4
    """H, heads; must divide expand * width."""
    state_size: Annotated[int, Field(ge=1, le=1024)] = 32
    """K, width of a key: numbers that each inner channel keeps."""
    conv_silu: bool = True
    """Put what leaves the convolution through a SiLU, as in the originals; without, keys are as alike as what they are made from."""
    expand: Annotated[int, Field(ge=1)] = 1
    """Inner width E, of all heads' values together, as a multiple of D."""
    kernel: Literal["auto", "reference", "chunked", "fla"] = "auto"
    """Implementation of the recurrence; auto takes the fastest that runs here."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.expand * self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide expand * width = {self.expand * self.width}")
        return self
