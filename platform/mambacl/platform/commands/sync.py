"""`mambacl sync`: deliver to MLflow the runs that it has not got yet, such as those made while it was away."""

import dataclasses
from pathlib import Path

from mambacl.platform.arguments import parse_options
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import console


@dataclasses.dataclass(frozen=True)
class Options:
    storage: StorageConfig = StorageConfig()
    """Which runs, and where to."""


def main(arguments: list[str]) -> int:
    options = parse_options("sync", Options, arguments)
    from mambacl.platform.tracking import record as records
    from mambacl.platform.tracking.store import Store

    store, delivered = Store(options.storage), 0
    for file in sorted(Path(options.storage.root).resolve().rglob(records.FILE)):
        record = records.read(file.parent)
        if record and not record.delivered:
            delivered += store.deliver(file.parent).delivered
    console.print(f"{delivered} runs delivered to {store.uri}")
    return 0
