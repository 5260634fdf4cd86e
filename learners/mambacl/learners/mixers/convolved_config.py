"""Config fields of the mixers that stand behind a short convolution."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.learners.sequence_config import SequenceConfig


class ConvolvedConfig(SequenceConfig):
    """Tokens see their neighbours through a short causal convolution, by which a label token finds its example."""

    short_conv: Annotated[int, Field(ge=0, le=16)] = 4
    """Width of the causal convolution before the mixer; 0 leaves it out."""
    query_conv: Literal["stream", "query"] = "stream"
    """What stands before a query in its convolution: the last tokens of the stream, which is as if the query were the next one, or
    the query itself, so that no example is mixed into it."""
    positions: Literal["none", "sinusoidal"] = "none"
    """Position information added to the tokens."""
