"""Config of the softmax transformer."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mambacl.learners.sequence_config import SequenceConfig


class AttentionConfig(SequenceConfig):
    """Softmax transformer: keeps the keys and values of all tokens, so its state grows with the stream."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.attention:AttentionMixer"
    source: ClassVar[str] = "Vaswani et al., 2017"
    memory: ClassVar[tuple[str, ...]] = ("width",)
    name: Literal["attention"] = "attention"
    """Which learner."""
    heads: Annotated[int, Field(ge=1)] = 4
    """H, attention heads; must divide width."""
    positions: Literal["none", "sinusoidal", "rotary"] = "none"
    """Sinusoids added to the tokens (as in the ancestors), or rotation of queries and keys by their distance."""
    short_conv: Annotated[int, Field(ge=0, le=16)] = 4
    """Width of a causal convolution before queries, keys and values, by which a label token finds its example, as in Mamba;
    0 leaves it out."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        share = self.width / self.heads
        if share % (2 if self.positions == "rotary" else 1):
            raise ValueError(
                f"heads = {self.heads} must divide width = {self.width} (into even parts for rotary positions)"
            )
        return self
