"""Config fields of the mixers with softmax attention."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from mambacl.learners.sequence_config import SequenceConfig


class SoftmaxConfig(SequenceConfig):
    """A state of the keys and values of all tokens."""

    memory: ClassVar[tuple[str, ...]] = ("width",)
    heads: Annotated[int, Field(ge=1)] = 4
    """H, attention heads; must divide width."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} must divide width = {self.width}")
        return self
