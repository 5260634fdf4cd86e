"""Config of softmax attention behind a short convolution."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.convolved_config import ConvolvedConfig
from mambacl.learners.mixers.softmax_config import SoftmaxConfig


class AttentionConfig(SoftmaxConfig, ConvolvedConfig):
    """Softmax attention behind a short convolution: keeps keys and values of all tokens, so its state grows with the stream."""

    similar: ClassVar[bool] = True
    implementation: ClassVar[str] = "mambacl.learners.mixers.attention:AttentionMixer"
    source: ClassVar[str] = "Vaswani et al., 2017"
    name: Literal["attention"] = "attention"
    """Which learner."""
    window: Annotated[int, Field(ge=2)] | None = None
    """Tokens that a token reads, itself among them, which makes the state one of fixed size; by default all before it."""
