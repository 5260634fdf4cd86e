"""The report of a study: one page with everything in it, and the pictures and tables beside it."""

import logging
from typing import Any

from mambacl.platform.config import StorageConfig
from mambacl.platform.console import console
from mambacl.platform.evaluation.tables import parts, where
from mambacl.platform.studying import page
from mambacl.platform.studying.finished import Finished, find_folder, read
from mambacl.platform.studying.importance import importances
from mambacl.platform.studying.pictures import drawn, transferred
from mambacl.platform.studying.standings import looks_of, markdown, standings
from mambacl.platform.studying.thresholds import thresholds
from mambacl.platform.studying.transfer import transfers
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.store import Store

logger = logging.getLogger("mambacl")


def report(name: str, storage: StorageConfig) -> dict[str, Any]:
    """Write the report of a study anew, by the study's name or its folder, and log it to the study's MLflow run.

    Returns what `mambacl report --json` prints. Raises ConfigError where there is no such study, or no results of it.
    """
    folder = find_folder(name, storage)
    storage = storage.model_copy(update={"root": str(folder.parent.parent)})
    files = write(read(folder), storage)
    records.update(folder, delivered=False)
    try:
        Store(storage).deliver(folder)
    except Exception as error:
        logger.warning("MLflow is away (%s); `mambacl sync` delivers the report later", error)
    for file in files:
        console.print(file, soft_wrap=True)
    return {"name": folder.name, "files": files}


def write(study: Finished, storage: StorageConfig) -> list[str]:
    """Write page, pictures and tables into the study's folder; returns the files, the page first."""
    folder = study.folder
    rows, steps, fields = standings(study), thresholds(study), importances(study, storage)
    looks = looks_of(study, rows)
    pictures = {
        family: drawn(study, family, mine, looks, where(fields, family=family))
        for family, mine in parts(rows, "family").items()
    }
    elsewhere = transfers(study)
    tables = {"table": rows, "steps_to_threshold": steps, "importance": fields, "transfer": elsewhere}
    across = transferred(study, elsewhere) if len(elsewhere) else None
    files = [folder / "report.html", folder / "table.md"]
    for name, table in tables.items():
        if len(table):
            table.to_csv(folder / f"{name}.csv", index=False)
            files.append(folder / f"{name}.csv")
    (folder / "table.md").write_text(markdown(rows))
    (folder / "report.html").write_text(page.render(study, rows, steps, fields, pictures, across))
    files += [picture.path for shown in pictures.values() for picture in shown.values()]
    files += [across.path] if across else []
    return [str(file) for file in files]
