"""Config fields that every sequence learner has: encoder, tokens, blocks."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mambacl.learners.base_config import LearnerBase
from mambacl.learners.encoders.config import EncoderConfig
from mambacl.tasks.config import Config


class ExpertsConfig(Config):
    """A mixture of experts in the place of a feed-forward part."""

    count: Annotated[int, Field(ge=2)] = 8
    """E, experts of a block."""
    active: Annotated[int, Field(ge=1)] = 2
    """Experts that a token goes to; each is as wide as the feed-forward part divided by this number."""
    balance: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the loss that spreads the tokens over the experts."""


class StackConfig(LearnerBase):
    """Blocks over the tokens of a stream."""

    scale: ClassVar[tuple[str, ...]] = ("width",)
    width: Annotated[int, Field(ge=1)] = 128
    """D, width of a token."""
    tokens: Literal["interleaved", "joined"] = "interleaved"
    """An example is two tokens, x then y (as in the paper), or one that holds both."""
    encoder: EncoderConfig | None = None
    """Turns an example into a vector; by default `cnn` for images and `mlp` for vectors."""

    start: Literal["random", "similarity"] = "random"
    """Fresh weights: random ones, or those with which it answers by the labels of similar examples, as class means or neighbours in the
    features of its encoder do; meta-training then has no plateau to leave. For label codes, and learners whose mixers know it."""

    @property
    @abstractmethod
    def blocks(self) -> "tuple[SequenceConfig, ...]":
        """What each block is made from, the first one first."""


class SequenceConfig(StackConfig):
    """A stack of blocks that are all alike."""

    similar: ClassVar[bool] = False
    """Whether the mixer knows the start by similarity."""
    memory: ClassVar[tuple[str, ...]] = ("state_size",)
    layers: Annotated[int, Field(ge=1)] = 2
    """Number of blocks."""
    feed_forward: Annotated[float, Field(ge=0)] = 2.0
    """Width of the feed-forward part of a block, as a multiple of D; 0 leaves it out."""
    experts: ExpertsConfig | None = None
    """Make the feed-forward part a mixture of experts; by default it is dense."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a block's outputs that is zeroed in training."""

    @property
    def blocks(self) -> "tuple[SequenceConfig, ...]":
        return (self,) * self.layers

    @model_validator(mode="after")
    def _similar(self) -> Self:
        if self.start == "similarity":
            if not self.similar:
                raise ValueError(f"start: {self.name} does not know 'similarity'; allowed: random")
            wanted = {"tokens": "interleaved", "query_conv": "query"} | (
                {"conv_silu": False} if hasattr(self, "conv_silu") else {}
            )
            if wrong := [field for field, value in wanted.items() if getattr(self, field) != value]:
                raise ValueError(f"start: 'similarity' needs {wrong[0]}: {str(wanted[wrong[0]]).lower()}")
            if self.short_conv < 2:  # type: ignore[attr-defined]
                raise ValueError("start: 'similarity' needs short_conv of at least 2")
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> Self:
        if self.experts:
            if self.experts.active > self.experts.count:
                raise ValueError(f"experts.active = {self.experts.active} must be at most count = {self.experts.count}")
            if not self.feed_forward:
                raise ValueError("experts: need a feed-forward part; set feed_forward above 0")
        return self
