"""What the config of every learner has."""

import importlib
import itertools
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Self

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
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields that are to be chosen on meta-validation, with the values to choose from, the default among them: the few numbers
    of a learner that nothing else fits to a task family."""
    name: Any
    """A str; each learner narrows it to its own."""

    @classmethod
    def implemented(cls) -> Any:
        """What `implementation` names."""
        module, name = cls.implementation.split(":")
        return getattr(importlib.import_module(module), name)

    def candidates(self, fixed: Collection[str] = ()) -> list[Self]:
        """This config, then those that differ from it in `choices`, all combinations but for the fields `fixed`."""
        values = {field: choices for field, choices in self.choices.items() if field not in fixed}
        combined = (dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))
        others = (self.model_copy(update=chosen) for chosen in combined)
        return [self, *(other for other in others if other != self)]


class RawConfig(LearnerBase):
    """A learner on the raw numbers of an example. It computes in float64, and no answer depends on the numbers' scale."""

    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"unit": (False, True)}
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
