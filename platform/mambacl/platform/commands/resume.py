"""`mambacl resume`: finish a sweep that was interrupted; nothing that is done is done again."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.console import json_line
from mambacl.tasks.config import ConfigError, nearest, parse


@dataclasses.dataclass(frozen=True)
class Options:
    name: tyro.conf.Positional[str]
    """Name of the sweep."""
    trials: int | None = None
    """Another number of trials in all."""
    storage: StorageConfig = StorageConfig()
    """Where the sweep is kept."""
    address: str | None = None
    """Ray cluster to run on; by default this machine."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options = parse_options("resume", Options, arguments)
    experiment = find_sweep(options)
    from mambacl.platform.sweeping.command import sweep

    result = sweep(experiment, options.address)
    if options.as_json:
        json_line(result)
    return 0


def find_sweep(options: Options) -> ExperimentConfig:
    """The experiment of the sweep of that name. Raises ConfigError with the names there are."""
    root = Path(options.storage.root)
    snapshots = {file.parent.name: file for file in root.glob("*/experiment.json")}
    if options.name not in snapshots:
        known = sorted(snapshots)
        raise ConfigError(
            f"name: no sweep {options.name!r} in {root}{nearest(options.name, known)}; sweeps: {', '.join(known) or 'none'}"
        )
    content = json.loads(snapshots[options.name].read_text())
    content["storage"] = options.storage.model_dump()
    if options.trials is not None:
        content["sweep"]["trials"] = options.trials
    return parse(ExperimentConfig, content)
