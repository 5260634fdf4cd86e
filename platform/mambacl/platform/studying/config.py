"""A study: which learners stand side by side, on which task families, and what they are asked.

learners x families x varied fields x seeds, each with the same search budget, then the same suites
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mambacl.platform.config import Choice, DimensionConfig, ExperimentConfig, Name, StorageConfig
from mambacl.platform.data.own_encoders import with_own_encoder
from mambacl.platform.evaluation.suites.registry import SuiteConfig
from mambacl.platform.overrides import load, override, read_yaml, shipped, vary
from mambacl.tasks.config import Config, ConfigError, nearest, parse

ANSWERS = "answers"
"""Of an experiment in a study: the sentence that says what it is there to answer."""

Measure = Literal["parameters", "active_parameters", "state_floats", "episode_flops"]
"""What learners can be brought to have in common."""


class MatchConfig(Config):
    """What all learners are resized to have in common, within 5 %."""

    measure: Measure
    """Parameters, parameters that are active for a token, state floats, or FLOPs of an episode."""
    budget: Annotated[float, Field(gt=0)]
    """How much of it."""


class SearchConfig(Config):
    """The search that every learner gets on meta-val before it is trained with all seeds."""

    trials: Annotated[int, Field(ge=1)]
    """Trials of each learner on each family, the same for all."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of a trial; default: those of the training."""
    grace: Annotated[int, Field(ge=1)] | None = None
    """Steps that every trial may take before it can be stopped early: more than learners spend on the loss's plateau. Default: as
    of a sweep."""
    fields: Annotated[dict[str, DimensionConfig], Field(min_length=1)]
    """What is searched, by dotted name."""


class StudyConfig(Config):
    """Learners side by side."""

    name: Name
    """Names the study, and its folder among the runs."""
    question: str = ""
    """What it is to answer; stands above its report."""
    experiments: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """By the name that each has in tables: `base`, a preset or YAML file, the fields that differ from it, by dotted name, and in
    `answers` what it is there to answer."""
    families: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)] | None = None
    """Task families that every experiment is trained on, by name: `base`, a preset or YAML file whose task is taken, and the
    fields that differ from it, by dotted name. Default: one, that of the experiments."""
    fields: dict[str, Any] = {}
    """Fields that are the same in all of them, by dotted name."""
    vary: dict[str, Annotated[tuple[Choice, ...], Field(min_length=1)]] = {}
    """Fields of which every experiment is trained with each value, by dotted name, as in {selectivity.weight: [0, 1]}."""
    match: MatchConfig | None = None
    """The size that learners are brought to; by default they keep their own."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Every experiment is trained once with each."""
    search: SearchConfig | None = None
    """Search before the training; by default none."""
    suites: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] = ("standard",)
    """What the trained models are asked: names of suites, or mappings with a `name` and parameters."""
    references: tuple[dict[str, Any], ...] | None = None
    """Learners without meta-training that stand beside them; by default those of the kind of task."""
    transfer: bool = False
    """Ask the models of each family about the meta-test classes of all others, too. Families have to have the same kind of input
    and as many label codes."""
    features: bool = False
    """Put the references on the features of each trained encoder, too."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trainings at a time; default: as many as the cluster's resources allow."""
    episodes: Annotated[int, Field(ge=2)] = 512
    """Meta-test episodes at each point of a suite."""

    @model_validator(mode="after")
    def _suites_exist(self) -> "StudyConfig":
        if all(suite.measure != "scores" for suite in self.asked):
            raise ValueError("suites: one of them must give scores, as standard does")
        return self

    @property
    def asked(self) -> list[SuiteConfig]:
        """The suites."""
        return [parse(SuiteConfig, {"name": s} if isinstance(s, str) else s, "suites") for s in self.suites]


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One training of a study."""

    family: str
    """Name of the task family; empty where the study has one only."""
    name: str
    """Of the experiment, in the study."""
    varied: Mapping[str, Choice]
    """Values of the varied fields, by dotted name."""
    seed: int
    experiment: ExperimentConfig
    answers: str = ""
    """What the experiment is there to answer."""

    @property
    def label(self) -> str:
        """Name of the learner in tables: of the experiment, and the varied values."""
        return " ".join([self.name, *(f"{field.rpartition('.')[2]}={value}" for field, value in self.varied.items())])

    @property
    def group(self) -> str:
        """What its seeds have in common."""
        return f"{self.family}/{self.label}" if self.family else self.label

    @property
    def path(self) -> str:
        """Its folder within the study's, by which progress names it."""
        return f"{self.group.replace('/', '.').replace(' ', ',')},seed={self.seed}"

    @property
    def model_name(self) -> str:
        """Of the registered model."""
        return f"{self.experiment.name}.{self.group}".translate(str.maketrans("/ =", "..-"))


def study_folder(study: StudyConfig, storage: StorageConfig) -> Path:
    """Where a study keeps its runs."""
    return Path(storage.root).resolve() / "studies" / study.name


def find_study(source: str, size: str | None = None, fork: str | None = None) -> StudyConfig:
    """The study of a shipped name or a YAML file, at one of its `sizes`: by default the first; it is then named NAME.SIZE,
    or `fork`.

    The fields of a size replace those of the study, and the fields of a study those of its `base`, another study. What they put
    under `add` is added instead, entry by entry, to the mapping of that name. A size with a `base` of its own takes that study in the
    place of its own, of which name and question are left. `only` picks experiments by name. Raises ConfigError for anything else.
    """
    content = _read(source)
    renamed = {} if fork is None else {"name": fork}
    sizes = content.pop("sizes", {})
    if not isinstance(sizes, Mapping) or not all(isinstance(part, Mapping) for part in sizes.values()):
        raise ConfigError(f"sizes: must be mappings of fields by name, in {source}")
    if not sizes and size is None:
        return parse(StudyConfig, _picked(content) | renamed)
    chosen = size or next(iter(sizes))
    if chosen not in sizes:
        raise ConfigError(
            f"size: {source} has no {chosen!r}{nearest(chosen, list(sizes))}; allowed: {', '.join(sizes) or 'none'}"
        )
    part = sizes[chosen]
    sized = _on_base(part, (source,)) if "base" in part else _lay_over(content, part)
    named = {"name": f"{content.get('name')}.{chosen}", "question": content.get("question", "")}
    return parse(StudyConfig, _picked(sized) | named | renamed)


def _read(source: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The mapping of a study, on top of its base where it names one."""
    return _on_base(read_yaml(source, shipped("studies"), "study"), (*above, source))


def _on_base(content: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    """A study, or a size of one, on top of its base where it names one; the base's own sizes are not inherited."""
    own = {field: value for field, value in content.items() if field != "base"}
    if (base := content.get("base")) is None:
        return own
    if not isinstance(base, str) or base in above:
        raise ConfigError(f"base: must be the name of another study or file, got {base!r} in {above[-1]}")
    below = {field: value for field, value in _read(base, above).items() if field != "sizes"}
    return _lay_over(below, own)


def _lay_over(below: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the fields of `part` in their places, and with what `part` adds. Other experiments are not those that `only`
    below picks from."""
    kept = {field: value for field, value in below.items() if field != "only" or "experiments" not in part}
    result = kept | {field: value for field, value in part.items() if field != "add"}
    added = part.get("add", {})
    if not isinstance(added, Mapping) or not all(isinstance(entries, Mapping) for entries in added.values()):
        raise ConfigError(f"add: must be mappings by the name of the mapping they are added to, got {added!r}")
    for field, entries in added.items():
        if not isinstance(result.get(field, {}), Mapping):
            raise ConfigError(f"add.{field}: {field} is no mapping; write {field} itself to replace it")
        result[field] = {**result.get(field, {}), **entries}
    return result


def _picked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The study with the experiments that `only` names."""
    result = dict(content)
    if (only := result.pop("only", None)) is not None:
        known = result.get("experiments", {})
        if unknown := [name for name in only if name not in known]:
            raise ConfigError(
                f"only: unknown {unknown[0]!r}{nearest(unknown[0], list(known))}; allowed: {', '.join(known)}"
            )
        result["experiments"] = {name: known[name] for name in only}
    return result


def entries_of(study: StudyConfig, changes: Mapping[str, Any], data: str | None = None) -> list[Entry]:
    """All trainings of a study, with `changes` (dotted names) in each.

    data: folder that relative paths of data start from. Raises ConfigError that names the experiment at fault.
    """
    found = []
    families = study.families or {"": {}}
    on = functools.cache(load)  # a base is read once for all trainings that are built on it
    for family, name, varied, seed in trainings_of(study):
        of_family, own = families[family], study.experiments[name]
        try:
            content = on(_base(own)) | ({"task": on(_base(of_family))["task"]} if "base" in of_family else {})
            fields = study.fields | _fields(of_family) | _fields(own) | varied | dict(changes)
            content = override(content, fields) | {"name": study.name, "seed": seed}
            experiment = with_own_encoder(_placed(parse(ExperimentConfig, content), data))
        except ConfigError as error:
            where = f"experiments.{name}" + (f" on families.{family}" if family else "")
            raise ConfigError(f"{where}: {error}") from None
        found.append(Entry(family, name, varied, seed, experiment, str(own.get(ANSWERS, ""))))
    return found


def trainings_of(study: StudyConfig) -> Iterator[tuple[str, str, dict[str, Choice], int]]:
    """Family, experiment, varied values and seed of each training, in order."""
    for family, name, seed in itertools.product(study.families or [""], study.experiments, study.seeds):
        for values in itertools.product(*study.vary.values()):
            yield family, name, dict(zip(study.vary, values, strict=True)), seed


def _base(part: Mapping[str, Any]) -> str:
    if "base" not in part:
        raise ConfigError("base: missing; it names a preset or YAML file")
    return part["base"]


def _fields(part: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in part.items() if field not in ("base", ANSWERS)}


def _placed(experiment: ExperimentConfig, data: str | None) -> ExperimentConfig:
    """The experiment with its data, and the weights of its frozen encoder, in a folder: relative paths start there."""
    task = experiment.task
    if data is None:
        return experiment
    places = {} if task.location is None else {f"task.{task.location}": getattr(task, task.location)}
    encoder = getattr(task, "encoder", None)
    if encoder is not None and encoder.weights is not None:
        places["task.encoder.weights"] = encoder.weights
    relative = {
        field: f"{data}/{path}" for field, path in places.items() if "://" not in path and not Path(path).is_absolute()
    }
    return vary(experiment, relative) if relative else experiment
