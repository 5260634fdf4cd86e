"""What the config of every learner has."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from mambacl.learners.encoders.config import EncoderConfig
from mambacl.tasks.config import Config


class LearnerBase(Config):
    """A learner by name; a learner's config is a subclass with its own name as a Literal."""

    implementation: ClassVar[str]
    """module:class that reads an episode: a Mixer for a SequenceConfig, else a Learner. Imported when one is built."""
    source: ClassVar[str] = ""
    """Where the learner is described: authors and year."""
    scale: ClassVar[tuple[str, ...]] = ()
    """Fields that parameters and arithmetic grow with, changed together to give a learner the cost of another."""
    memory: ClassVar[tuple[str, ...]] = ()
    """Fields that the state grows with."""
    name: Any
    """A str; each learner narrows it to its own."""


class RawConfig(LearnerBase):
    """A learner on the raw numbers of an example."""

    unit: bool = False
    """Scale every example to length 1."""


class EncodedConfig(LearnerBase):
    """A learner on the features of an encoder that is meta-trained with it."""

    scale: ClassVar[tuple[str, ...]] = ("width",)
    memory: ClassVar[tuple[str, ...]] = ("width",)
    encoder: EncoderConfig | None = None
    """Turns an example into a vector; by default `cnn` for images and `mlp` for vectors."""
    width: Annotated[int, Field(ge=1)] = 128
    """F, features of an example."""
