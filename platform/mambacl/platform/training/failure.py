"""Why a run can never be finished, in its folder: a reason for people and programs, and the traceback."""

import json
import traceback
from pathlib import Path

import torch

FILE = "failure.json"
TRACEBACK = "traceback.txt"

REFUSED = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive")
"""What torch says on the CPU where memory is refused, and what oneDNN says, which runs its convolutions and products."""


class TrainingFailed(RuntimeError):
    """A run that cannot be finished; the message is its reason."""


def write(run: Path, reason: str, text: str) -> TrainingFailed:
    """Keep the reason and a traceback; returns what is to be raised."""
    (run / TRACEBACK).write_text(text)
    (run / FILE).write_text(json.dumps({"reason": reason}))
    return TrainingFailed(reason)


def read(run: Path) -> TrainingFailed | None:
    """How the run failed, or None."""
    path = run / FILE
    return TrainingFailed(json.loads(path.read_text())["reason"]) if path.is_file() else None


def forget(run: Path) -> None:
    """Remove what an earlier try left."""
    for name in (FILE, TRACEBACK):
        (run / name).unlink(missing_ok=True)


def in_words(error: BaseException) -> tuple[str, str]:
    """An error's reason on one line, and its traceback, with notes that it brought from another process."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    kind = type(error).__name__
    return f"{kind}: {first}"[:500] if first else kind, "".join(traceback.format_exception(error))


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU refused memory."""
    refused = isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSED)
    return refused or isinstance(error, torch.OutOfMemoryError | MemoryError)
