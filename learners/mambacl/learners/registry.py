"""The learners by name. Torch-free: a learner's code is imported when one is built."""

import importlib
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.nearest_mean_config import NearestMeanConfig
from mambacl.learners.sequence_config import SequenceConfig
from mambacl.tasks.config import parse

if TYPE_CHECKING:
    from mambacl.learners.learner import Learner
    from mambacl.tasks.episode import Spec

LearnerConfig = Annotated[MambaConfig | AttentionConfig | NearestMeanConfig, Field(discriminator="name")]

IMPLEMENTATIONS = {
    "mamba": "mambacl.learners.mixers.mamba:MambaMixer",
    "attention": "mambacl.learners.mixers.attention:AttentionMixer",
    "nearest_mean": "mambacl.learners.nearest_mean:NearestMean",
}
"""The mixer of a sequence learner, the class of any other."""


def build(config: dict[str, Any] | LearnerConfig, spec: "Spec") -> "Learner":
    """The learner that a config or a mapping like one describes, with fresh weights, for a family's `spec`.

    Raises ConfigError (a ValueError) with one line a mistake: an unknown name or field, sizes that do not fit.
    """
    chosen: LearnerConfig = parse(LearnerConfig, config, "learner")
    module, name = IMPLEMENTATIONS[chosen.name].split(":")
    implementation = getattr(importlib.import_module(module), name)
    if not isinstance(chosen, SequenceConfig):
        return implementation(chosen, spec)
    from mambacl.learners.sequence import SequenceLearner  # torch is imported only when a learner is built

    return SequenceLearner(chosen, spec, implementation)
