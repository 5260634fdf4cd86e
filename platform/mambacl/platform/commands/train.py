"""`mambacl train`: meta-train one learner."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mambacl.platform.arguments import parse_experiment
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.console import console, json_line, sizes
from mambacl.tasks.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Options:
    resume: Literal["auto", "never", "must"] = "auto"
    """auto continues a run of the same config where there is one, never starts a new one, must refuses to start one."""
    address: str | None = None
    """Ray cluster to train on; by default this machine."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    experiment, options = parse_experiment("train", Options, arguments)
    from mambacl.platform.training.command import train_one

    run = run_folder(experiment, options.resume)
    outcome = train_one(experiment, run, options.address)
    if options.as_json:
        json_line(outcome)
    else:
        console.print(
            f"{outcome['split']} score {outcome['score']:.3f} [{outcome['low']:.3f}, {outcome['high']:.3f}] after "
            f"{outcome['steps']} steps, {outcome['seconds']:.0f} s\n"
            f"learner     {sizes(outcome)}\n"
            f"checkpoint  {outcome['checkpoint']}\nevaluate    mambacl evaluate runs:/{outcome['run_id']} --suite standard"
        )
    return 0


def run_folder(experiment: ExperimentConfig, resume: str) -> Path:
    """The folder of a run: by its config's digest, so that the same command finds its own run again."""
    base = first_folder(experiment)
    if resume == "must" and not base.is_dir():
        raise ConfigError(f"resume: there is no run of this config to continue at {base}")
    if resume != "never" or not base.exists():
        return base
    number = 2
    while (folder := base.with_name(f"{base.name}-{number}")).exists():
        number += 1
    return folder


def first_folder(experiment: ExperimentConfig) -> Path:
    """The folder of the first run of a config."""
    run = f"{experiment.learner.name}-{experiment.digest[:8]}"
    return Path(experiment.storage.root).resolve() / experiment.name / "train" / run
