"""One driver a folder: two that work in the same one would write over each other."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mambacl.platform.origin import origin
from mambacl.tasks.config import ConfigError

LOCK, HOLDER = ".driver.lock", ".driver.json"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other drivers out of a folder for the length of some work. Raises ConfigError that names the one that is in it.

    The kernel holds the lock, and lets go of it with the process, however that ends. Drivers of submitted jobs run on one
    node, so they meet each other even where a shared file system keeps locks to each node.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(f"name: {_told(holder)} works in {folder} already; wait for it, or stop it first") from None
    try:
        me = {"job": origin().job, "pid": os.getpid(), "host": socket.gethostname()}
        holder.write_text(json.dumps(me))
        yield
    finally:
        lock.release()


def _told(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text())
    except (OSError, ValueError):  # it has not said so yet
        return "another driver"
    return f"job {found['job']}" if found["job"] else f"process {found['pid']} on {found['host']}"
