"""`mambacl list`: what there is."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import json_line, table

Kind = Literal["presets", "studies", "suites", "learners", "tasks", "models", "runs", "sweeps"]


@dataclasses.dataclass(frozen=True)
class Options:
    kind: tyro.conf.Positional[Kind] = "presets"
    """What to list."""
    storage: StorageConfig = StorageConfig()
    """Where models and runs are looked for."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON array as the last line."""


def main(arguments: list[str]) -> None:
    options = parse_options("list", Options, arguments)
    rows = {
        "presets": presets,
        "studies": studies,
        "suites": suites,
        "learners": learners,
        "tasks": tasks,
        "models": lambda: models(options.storage),
        "runs": lambda: runs(options.storage, "train"),
        "sweeps": lambda: runs(options.storage, "sweep"),
    }[options.kind]()
    if options.as_json:
        json_line(rows)
    else:
        table(options.kind, list(rows[0]) if rows else ["name"], [list(row.values()) for row in rows])


def presets() -> list[dict[str, Any]]:
    from mambacl.platform.overrides import load
    from mambacl.platform.overrides import presets as shipped

    rows = []
    for name in sorted(shipped()):
        content = load(name)
        rows.append(
            {
                "name": name,
                "task": content["task"]["name"],
                "learner": content["learner"]["name"],
                "trials": content.get("sweep", {}).get("trials", 0),
            }
        )
    return rows


def studies() -> list[dict[str, Any]]:
    from mambacl.platform.overrides import read_yaml, shipped
    from mambacl.platform.studying.config import find_study

    texts = shipped("studies")
    return [
        {
            "name": name,
            "sizes": ", ".join(read_yaml(name, texts, "study").get("sizes", [])),
            "question": find_study(name).question,
        }
        for name in sorted(texts)
    ]


def suites() -> list[dict[str, Any]]:
    from mambacl.platform.evaluation.suites.registry import SUITES

    return _variants(SUITES.values())


def learners() -> list[dict[str, Any]]:
    """Each learner with its sizes by default, for streams of 20 tasks x 5 shots."""
    from mambacl.learners.registry import CONFIGS
    from mambacl.learners.registry import build as build_learner
    from mambacl.platform.cost import count_parameters
    from mambacl.tasks.config import ConfigError
    from mambacl.tasks.episode import Spec

    images = Spec(input="image", shape=(1, 32, 32), output="classification", size=100, digest="")
    values = Spec(input="vector", shape=(50,), output="regression", size=50, digest="")
    rows = _variants(CONFIGS.values())
    for row, config in zip(rows, CONFIGS.values(), strict=True):
        try:
            learner = build_learner(config.model_validate({}), images)
        except ConfigError:  # made for values
            learner = build_learner(config.model_validate({}), values)
        parameters = count_parameters(learner)[0]
        row |= {"parameters": parameters, "state floats": learner.state_floats(100), "source": config.source}
    return rows


def tasks() -> list[dict[str, Any]]:
    from mambacl.tasks.registry import TaskConfig

    return _variants(get_args(get_args(TaskConfig)[0]))


def _variants(kinds: Iterable[Any]) -> list[dict[str, Any]]:
    """The name and first docstring line of each config."""
    return [
        {"name": kind.model_fields["name"].default, "what it is": (kind.__doc__ or "").splitlines()[0]}
        for kind in kinds
    ]


def models(storage: StorageConfig) -> list[dict[str, Any]]:
    from mambacl.platform.tracking.registry import registered

    return registered(storage)


def runs(storage: StorageConfig, kind: str) -> list[dict[str, Any]]:
    from mambacl.platform.tracking import record as records

    rows = []
    for file in sorted(Path(storage.root).rglob(records.FILE)):
        record = records.read(file.parent)
        if record and record.kind == kind:
            rows.append(
                {
                    "name": record.name,
                    "experiment": record.experiment,
                    "status": record.status,
                    "score": record.metrics.get("best/score"),
                    "run_id": record.run_id,
                    "folder": str(file.parent),
                }
            )
    return rows
