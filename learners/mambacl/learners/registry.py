"""Which learners there are. Configs are torch-free; what reads episodes is imported when a learner is built.

A learner of another package joins by an entry point of the group `mambacl.learners` that names its config class.
"""

import importlib
import importlib.metadata
import logging
import operator
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mambacl.learners.base_config import LearnerBase
from mambacl.learners.closed_form import configs as closed_form
from mambacl.learners.gradient import configs as gradient
from mambacl.learners.mixers.hybrid_config import MIXERS, HybridConfig
from mambacl.learners.sequence_config import SequenceConfig
from mambacl.tasks.config import parse

if TYPE_CHECKING:
    from mambacl.learners.learner import Learner
    from mambacl.tasks.episode import Spec

GROUP = "mambacl.learners"

SHIPPED: tuple[type[LearnerBase], ...] = (
    *MIXERS,
    HybridConfig,
    gradient.OmlConfig,
    gradient.AnmlConfig,
    closed_form.PrototypesConfig,
    closed_form.GemclConfig,
    closed_form.AlpacaConfig,
    closed_form.NearestMeanConfig,
    closed_form.KnnConfig,
    closed_form.SldaConfig,
    closed_form.RidgeConfig,
    closed_form.RandomRidgeConfig,
    gradient.OnlineSgdConfig,
    gradient.JointSgdConfig,
)


def _joined() -> dict[str, type[LearnerBase]]:
    """Configs of learners that other installed packages bring; one that cannot be loaded is left out with a warning."""
    found = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            config = entry.load()
            found[config.model_fields["name"].default] = config
        except Exception as error:  # a foreign package may raise anything, and must not end every command
            logging.getLogger("mambacl").warning("learner %s is left out: %s", entry.value, error)
    return found


CONFIGS = {config.model_fields["name"].default: config for config in SHIPPED} | _joined()
"""Every learner's config by name."""

if TYPE_CHECKING:
    LearnerConfig = LearnerBase
else:
    LearnerConfig = Annotated[reduce(operator.or_, CONFIGS.values()), Field(discriminator="name")]


def build(config: "dict[str, Any] | LearnerConfig", spec: "Spec") -> "Learner":
    """The learner that a config or a mapping like one describes, with fresh weights, for a family's `spec`.

    Raises ConfigError (a ValueError) with one line a mistake: an unknown name or field, sizes that do not fit.
    """
    chosen: LearnerConfig = parse(LearnerConfig, config, "learner")
    if isinstance(chosen, SequenceConfig):
        from mambacl.learners.sequence import SequenceLearner  # torch is imported only when a learner is built

        return SequenceLearner(chosen, spec)
    return chosen.implemented()(chosen, spec)
