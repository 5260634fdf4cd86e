"""`mambacl evaluate`: models on meta-test, beside the references, on the same episodes."""

import dataclasses
from typing import Annotated

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import json_line


@dataclasses.dataclass(frozen=True)
class Options:
    models: tyro.conf.Positional[tuple[str, ...]]
    """models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID, or a checkpoint or run folder; one or more."""
    suite: str = "standard"
    """What is asked (`mambacl list suites`), or YAML with its parameters, as in '{name: length, tasks: [5, 10, 20]}'."""
    episodes: int = 512
    """Meta-test episodes at each point of the suite."""
    references: tuple[str, ...] | None = None
    """Learners without meta-training to stand beside the models (`mambacl list learners`); by default nearest_mean for
    classes, ridge and knn for values."""
    features: bool = False
    """Put the references on the features of each model's encoder, too."""
    storage: StorageConfig = StorageConfig()
    """Where models are looked for and results are kept."""
    task_path: Annotated[str | None, tyro.conf.arg(name="task.path")] = None
    """Where the data are now, if not where the model was trained."""
    on: str | None = None
    """Experiment on whose task family the models are asked: trained here, tested there."""
    allow_seen: bool = False
    """Ask about classes that a model met in meta-training, too, in tables of their own; by default they are refused."""
    gpus: float = 0
    """GPUs of each cell of 64 episodes, such as 0.25."""
    address: str | None = None
    """Ray cluster to evaluate on; by default this machine."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options = parse_options("evaluate", Options, arguments)
    from mambacl.platform.evaluation.command import Asked, evaluate
    from mambacl.platform.evaluation.suites.registry import find_suite

    asked = Asked(
        episodes=options.episodes,
        references=None if options.references is None else [{"name": name} for name in options.references],
        features=options.features,
        path=options.task_path,
        on=options.on,
        allow_seen=options.allow_seen,
        gpus=options.gpus,
    )
    summary = evaluate(options.models, find_suite(options.suite), options.storage, asked, options.address)
    if options.as_json:
        json_line(summary)
    return 0
