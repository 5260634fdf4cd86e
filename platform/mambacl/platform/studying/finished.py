"""A study as it lies in its folder: what was asked, what was answered, and what became of each training."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd

from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.studying.config import Entry, StudyConfig, trainings_of
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Checkpoint
from mambacl.tasks.config import ConfigError, parse

SNAPSHOT = "study.json"
"""Of a study in its folder, and of each experiment in its own."""
RESULTS = "results.json"
"""What `mambacl study --json` prints."""


def on_family(name: str) -> str:
    """Where the answers about another family stand, among those of suites."""
    return f"on_{name}"


@dataclasses.dataclass(frozen=True)
class Finished:
    """A study that has results."""

    folder: Path
    config: StudyConfig
    summary: dict[str, Any]
    """What was answered, by family and suite, what failed, and what was not run."""
    entries: tuple[Entry, ...]
    """All trainings that were asked for."""

    @functools.cached_property
    def trained(self) -> dict[Entry, Checkpoint]:
        """Those that are done, with their newest checkpoints."""
        newest = {entry: checkpoint.newest(self.folder / entry.path) for entry in self.entries}
        return {entry: last for entry, last in newest.items() if last and entry.path not in self.summary["failed"]}

    @functools.cached_property
    def curves(self) -> dict[Entry, pd.DataFrame]:
        """The points at which each training was evaluated: step, train/cpu_seconds, meta_val/score."""
        return {
            entry: pd.DataFrame(last.curve).dropna(subset=["meta_val/score"])
            for entry, last in self.trained.items()
            if last.progress.step
        }

    def suites(self, family: str) -> dict[str, dict[str, Any]]:
        """Summaries by suite."""
        return self.summary["evaluation"][family]

    def results(self, family: str, suite: str) -> Path:
        """The folder of a suite's tables and pictures."""
        return self.folder / "results" / family / suite


def find_folder(study: str, storage: StorageConfig) -> Path:
    """The folder of a study, by its name or its path. Raises ConfigError with what there is."""
    studies = Path(storage.root).resolve() / "studies"
    for folder in (Path(study).resolve(), studies / study):
        if (folder / SNAPSHOT).is_file():
            return folder
    known = sorted(path.parent.name for path in studies.glob(f"*/{SNAPSHOT}"))
    raise ConfigError(f"study: no folder of a study {study!r}; in {studies} there are: {', '.join(known) or 'none'}")


def read(folder: Path) -> Finished:
    """The study in a folder. Raises ConfigError where it has no results yet."""
    if not (folder / RESULTS).is_file():
        raise ConfigError(f"study: {folder} has no results yet; `mambacl study` with the same arguments finishes it")
    config = parse(StudyConfig, json.loads((folder / SNAPSHOT).read_text()))
    entries = [_entry(folder, *training) for training in trainings_of(config)]
    return Finished(folder, config, json.loads((folder / RESULTS).read_text()), tuple(entries))


def _entry(folder: Path, family: str, name: str, varied: dict[str, Any], seed: int) -> Entry:
    path = Entry(family, name, varied, seed, ExperimentConfig(name=name)).path
    content = json.loads((folder / path / SNAPSHOT).read_text())
    return Entry(family, name, varied, seed, parse(ExperimentConfig, content))
