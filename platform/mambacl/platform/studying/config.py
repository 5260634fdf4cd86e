"""A study: which experiments stand side by side, and what they have in common."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from mambacl.platform.config import ExperimentConfig, Name
from mambacl.platform.overrides import load, override, read_yaml, shipped
from mambacl.tasks.config import Config, ConfigError, parse

Measure = Literal["parameters", "active_parameters", "state_floats", "episode_flops"]
"""What learners can be brought to have in common."""


class MatchConfig(Config):
    """What all learners are resized to have in common, within 5 %."""

    measure: Measure
    """Parameters, parameters that are active for a token, state floats, or FLOPs of an episode."""
    budget: Annotated[float, Field(gt=0)]
    """How much of it."""


class StudyConfig(Config):
    """Experiments side by side."""

    name: Name
    """Names the study, and its folder among the runs."""
    experiments: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """By the name that each has in tables: `base`, a preset or YAML file, and the fields that differ from it, by dotted name."""
    fields: dict[str, Any] = {}
    """Fields that are the same in all of them, by dotted name."""
    match: MatchConfig | None = None
    """The size that learners are brought to; by default they keep their own."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Every experiment is trained once with each."""
    references: tuple[dict[str, Any], ...] | None = None
    """Learners without meta-training that stand beside them; by default those of the kind of task."""
    features: bool = False
    """Put the references on the features of each trained encoder, too."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trainings at a time; default: as many as the cluster's resources allow."""
    episodes: Annotated[int, Field(ge=2)] = 512
    """Meta-test episodes."""


def find_study(source: str) -> StudyConfig:
    """The study of a shipped name or a YAML file. Raises ConfigError for anything else."""
    return parse(StudyConfig, read_yaml(source, shipped("studies"), "study"))


def experiments_of(study: StudyConfig, changes: Mapping[str, Any]) -> dict[str, ExperimentConfig]:
    """The experiments of a study for each seed, by label, with `changes` (dotted names) in all of them.

    Raises ConfigError that names the experiment at fault.
    """
    found = {}
    for label, own in study.experiments.items():
        for seed in study.seeds:
            own_fields = {name: value for name, value in own.items() if name != "base"}
            try:
                content = override(load(own["base"]), study.fields | own_fields | dict(changes))
                content |= {"name": study.name, "seed": seed}
                found[label if len(study.seeds) == 1 else f"{label}.{seed}"] = parse(ExperimentConfig, content)
            except KeyError:
                raise ConfigError(f"experiments.{label}.base: missing; it names a preset or YAML file") from None
            except ConfigError as error:
                raise ConfigError(f"experiments.{label}: {error}") from None
    return found
