"""Config of softmax attention behind a short convolution."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.softmax_config import SoftmaxConfig


class AttentionConfig(SoftmaxConfig):
    """Softmax attention behind a short convolution: keeps keys and values of all tokens, so its state grows with the stream."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.attention:AttentionMixer"
    source: ClassVar[str] = "Vaswani et al., 2017"
    name: Literal["attention"] = "attention"
    """Which learner."""
    positions: Literal["none", "sinusoidal"] = "none"
    """Position information added to the tokens."""
    short_conv: Annotated[int, Field(ge=0, le=16)] = 4
    """Width of a causal convolution before queries, keys and values, by which a label token finds its example, as in Mamba;
    0 leaves it out."""
