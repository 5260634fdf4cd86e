"""`mambacl study`: train several experiments, evaluate them on the same episodes, and set them side by side."""

import dataclasses
from typing import Annotated

import tyro

from mambacl.platform.arguments import parse_study
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import json_line
from mambacl.platform.studying.devices import Device


@dataclasses.dataclass(frozen=True)
class Options:
    """Any field of an experiment can be set for all of them, as in --train.steps 100 or --task.path FILE."""

    name: tyro.conf.Positional[str]
    """A study that ships with the package, or a YAML file."""
    size: str | None = None
    """Which size of the study, such as cpu, day or paper; by default its first."""
    fork: str | None = None
    """Name of another study, in a folder of its own, that this one is run as: where its fields have changed since."""
    data: str | None = None
    """Folder of the data: where relative paths in the study start from."""
    storage: StorageConfig = StorageConfig()
    """Where runs are kept."""
    address: str | None = None
    """Ray cluster to run on; by default this machine."""
    dry_run: bool = False
    """Show what each experiment answers, its size, its steps and an estimate of hours, and train nothing."""
    device: Device | None = None
    """Whose hours --dry_run estimates: a core, or a GPU; by default an H100 for studies that ask for GPUs, else a core."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options, changes = parse_study(Options, arguments)
    from mambacl.platform.studying.command import dry_run, study
    from mambacl.platform.studying.config import find_study

    config = find_study(options.name, options.size, options.fork)
    result = (
        dry_run(config, changes, options.data, options.device)
        if options.dry_run
        else study(config, changes, options.storage, options.data, options.address)
    )
    if options.as_json:
        json_line(result)
    return 0
