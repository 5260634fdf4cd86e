"""Config fields that every sequence learner has: encoder, tokens, blocks."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.learners.base_config import LearnerBase
from mambacl.learners.encoders.config import EncoderConfig


class SequenceConfig(LearnerBase):
    """A stack of blocks over the tokens of a stream."""

    layers: Annotated[int, Field(ge=1)] = 2
    """Number of blocks."""
    width: Annotated[int, Field(ge=1)] = 128
    """D, width of a token."""
    feed_forward: Annotated[float, Field(ge=0)] = 2.0
    """Width of the feed-forward part of a block, as a multiple of D; 0 leaves it out."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a block's outputs that is zeroed in training."""
    tokens: Literal["interleaved", "joined"] = "interleaved"
    """An example is two tokens, x then y (as in the paper), or one that holds both."""
    encoder: EncoderConfig | None = None
    """Turns an example into a vector; by default `cnn` for images and `mlp` for vectors."""
