"""The evaluation suites by name."""

from typing import Annotated, Any, get_args

import yaml
from pydantic import Field

from mambacl.platform.evaluation.suites.cost import CostSuite
from mambacl.platform.evaluation.suites.forgetting import Forgetting
from mambacl.platform.evaluation.suites.length import Length
from mambacl.platform.evaluation.suites.noise import NoiseSuite
from mambacl.platform.evaluation.suites.overfitting import Overfitting
from mambacl.platform.evaluation.suites.robustness import Robustness
from mambacl.platform.evaluation.suites.selectivity import Selectivity
from mambacl.platform.evaluation.suites.shift import Shift
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.tasks.config import ConfigError, nearest, parse

SuiteConfig = Annotated[
    Standard | Length | NoiseSuite | Shift | Forgetting | Selectivity | Overfitting | Robustness | CostSuite,
    Field(discriminator="name"),
]

SUITES = {kind.model_fields["name"].default: kind for kind in get_args(get_args(SuiteConfig)[0])}


def find_suite(text: str) -> SuiteConfig:
    """The suite of a name, or of YAML with its parameters: `length` or `{name: length, tasks: [5, 10, 20]}`.

    Raises ConfigError with what is allowed.
    """
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        content = text
    if isinstance(content, dict):
        return parse(SuiteConfig, content, "suite")
    if content not in SUITES:
        raise ConfigError(f"suite: unknown {text!r}{nearest(text, list(SUITES))}; allowed: {', '.join(SUITES)}")
    return SUITES[content]()
