"""Who takes part in an evaluation: models by what names them, and the references beside them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mambacl.learners.registry import LearnerConfig
from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.data.prepare import prepare
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner, has_encoder
from mambacl.platform.overrides import load
from mambacl.platform.tracking.registry import Reference, find
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.registry import TaskConfig


def find_models(
    models: Sequence[str] | Mapping[str, Sequence[Path]], storage: StorageConfig
) -> list[tuple[str, Reference]]:
    """Each model with its label. models: what names them, or folders by label; those of one label are seeds of a learner."""
    if not models:
        raise ConfigError("models: none given; name models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID or a folder")
    if isinstance(models, Mapping):
        return [(label, find(str(folder), storage)) for label, folders in models.items() for folder in folders]
    return labelled([find(model, storage) for model in models])


def labelled(found: Iterable[Reference]) -> list[tuple[str, Reference]]:
    """A short label for each model: the same for what differs in the seed alone, another for anything else."""
    seeds: dict[str, dict[int, Reference]] = {}
    for reference in found:
        config = reference.checkpoint.config
        recipe, copies = config.model_copy(update={"seed": 0}).digest, 0
        while config.seed in seeds.get(f"{recipe} {copies}", {}):
            copies += 1
        seeds.setdefault(f"{recipe} {copies}", {})[config.seed] = reference
    labels: dict[str, list[Reference]] = {}
    for members in seeds.values():
        one = next(iter(members.values()))
        label = name = one.label if len(members) == 1 else one.checkpoint.config.learner.name
        number = 2
        while label in labels:
            label, number = f"{name} ({number})", number + 1
        labels[label] = list(members.values())
    return [(label, reference) for label, members in labels.items() for reference in members]


def common_task(
    found: Sequence[Reference],
    path: str | None = None,
    on: str | TaskConfig | None = None,
    address: str | None = None,
) -> TaskConfig:
    """The task family that models are asked about, with its data in place: the one that all were trained on, with the data
    at `path` if given; or `on`, or that of the experiment which this names, at the episode size of the first model.

    Raises ConfigError where the models share no family, the data are others, or a model does not fit.
    """
    specs = [reference.checkpoint.progress.spec for reference in found]
    if on is None:
        tasks = [located(reference.checkpoint.config.task, path) for reference in found]
        one = len({spec.digest for spec in specs}) == 1
        # Models that were trained on more and fewer classes or images of the same data meet the same meta-test episodes.
        if (
            not one
            and len(
                {
                    task.model_dump_json(exclude={"train_classes", "train_images", "augment", "augment_vectors"})
                    for task in tasks
                }
            )
            > 1
        ):
            raise ConfigError(
                "models: they were trained on different task families and share no episodes; --on EXPERIMENT names one for all"
            )
        prepare(tasks, address)
        for task, spec in zip(tasks, specs, strict=True):
            if built_family(task).spec.digest != spec.digest:
                raise ConfigError("task: the data are not those that the model was trained on (digests differ)")
        return tasks[0] if one else tasks[0].model_copy(update={"train_classes": None, "train_images": None})
    task = located(parse(ExperimentConfig, load(on)).task if isinstance(on, str) else on, path)
    trained = found[0].checkpoint.config.task
    sizes = {name: getattr(trained, name) for name in ("tasks", "shots", "queries")}
    if specs[0].output == "classification":
        sizes["vocabulary"] = specs[0].size
    task = task.model_copy(update=sizes)
    prepare([task], address)
    spec = built_family(task).spec
    for reference, own in zip(found, specs, strict=True):
        if fact := own.unlike(spec):
            raise ConfigError(
                f"on: {reference.label} was trained on {fact} {getattr(own, fact)}, "
                f"{on if isinstance(on, str) else task.name} has {getattr(spec, fact)}"
            )
    return task


def located(task: TaskConfig, path: str | None) -> TaskConfig:
    """The family with its data at `path`, if given."""
    if path is None:
        return task
    field = task.location
    if field is None:
        raise ConfigError(f"task.path: the task family {task.name!r} has none")
    return task.model_copy(update={field: path})


def anchors(
    references: Sequence[Mapping[str, Any]] | None, models: Sequence[Contestant], task: TaskConfig
) -> list[Contestant]:
    """The references, on the input and on the features of these models. Raises ConfigError for one that does not fit."""
    spec = built_family(task).spec
    if references is None:
        names = ("nearest_mean",) if spec.output == "classification" else ("ridge", "knn")
        references = [{"name": name} for name in names]
    learners = [parse(LearnerConfig, dict(reference), "references") for reference in references]
    for learner in learners:
        if build_learner(learner, spec).trainable:
            raise ConfigError(f"references: {learner.name!r} needs meta-training; train it and name its model")
    encoding = [model for model in models if has_encoder(built_learner(model, task))]
    return [
        Contestant.reference(learner, model, fixed=tuple(reference))
        for model in [None, *encoding]
        for learner, reference in zip(learners, references, strict=True)
    ]
