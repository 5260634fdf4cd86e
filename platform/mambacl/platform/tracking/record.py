"""The record of a run: a file in its folder that says what MLflow is to know of it, and whether it does."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mambacl.tasks.config import Config, parse

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

FILE = "run.json"

_changing = threading.Lock()
"""A run is delivered in one thread and closed in another."""


class Record(Config):
    """A run of any kind: training, sweep, study, evaluation."""

    kind: Literal["train", "sweep", "study", "evaluation"]
    name: str
    """Shown in MLflow."""
    experiment: str
    """MLflow experiment."""
    parent: str | None = None
    """Folder of the run that this one belongs to."""
    params: dict[str, Any] = {}
    """Flattened config."""
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    """Final figures, beside the curve in the checkpoints."""
    started: int = Field(default_factory=lambda: time.time_ns() // 1_000_000)
    """Milliseconds since 1970."""
    status: Status = "RUNNING"
    run_id: str | None = None
    """In MLflow, once it is known there."""
    sent: int = -1
    """Step up to which MLflow has the curve. A run that goes on from an older checkpoint comes by the same steps again."""
    delivered: bool = False
    """MLflow has everything, and the run is closed."""


def read(folder: Path) -> Record | None:
    """The record of a run's folder, or None."""
    path = folder / FILE
    return parse(Record, json.loads(path.read_text())) if path.is_file() else None


def write(folder: Path, record: Record) -> Record:
    """Replace the record at once: a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{FILE}.{os.getpid()}"
    draft.write_text(record.model_dump_json(indent=1))
    draft.rename(folder / FILE)
    return record


def reopen(folder: Path, record: Record) -> Record:
    """Write the record of a run that starts or goes on: what an earlier attempt is known by stays."""
    with _changing:
        if known := read(folder):
            record = record.model_copy(update={"run_id": known.run_id, "started": known.started, "sent": known.sent})
        return write(folder, record)


def update(folder: Path, **changes: Any) -> Record:
    """Change fields of an existing record."""
    with _changing:
        record = read(folder)
        assert record is not None, f"{folder} has no record"
        return write(folder, record.model_copy(update=changes))
