"""The model registry: checkpoints become versions with card, tags and aliases, and references become folders again.

A registered model is a folder of config.json, model.safetensors, progress.json, where it was trained on classes their
classes.json, and manifest.json (their SHA-256), with an MLmodel file that names this package's loader. Nothing in it is pickled.
"""

import contextlib
import dataclasses
import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mambacl.platform.config import StorageConfig
from mambacl.platform.tracking import classes
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import MANIFEST, Checkpoint
from mambacl.tasks.config import ConfigError, nearest

LOADER = "mambacl.platform.tracking.serving"
FILES = ("config.json", "model.safetensors", "progress.json")
CANDIDATE, CHAMPION = "candidate", "champion"


@dataclasses.dataclass(frozen=True)
class Reference:
    """A model that a reference named, found on disk."""

    text: str
    checkpoint: Checkpoint
    run_id: str | None = None
    name: str | None = None
    """Of the registered model."""
    version: int | None = None

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.checkpoint.config.learner.name}" + (f" v{self.version}" if self.version else "")


def register(
    store: Store, chosen: Checkpoint, run_id: str, card: str, tags: Mapping[str, str], name: str | None = None
) -> int:
    """Make a checkpoint a version of a model, with alias `candidate`; returns the version.

    name: of the model, by default that of its experiment.

    A checkpoint that is a version already stays that version.
    """
    client, config = store.client, chosen.config
    name = name or config.name
    _ensure_model(store, name)
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.tags.get("mambacl.sha256") == chosen.sha256:
            store.set_alias(name, CANDIDATE, known.version)
            return int(known.version)
    experiment = store.experiment(config.name)
    logged = client.create_logged_model(
        experiment,
        name=name.replace(".", "_"),  # MLflow allows no dot here
        source_run_id=run_id,
        model_type=config.learner.name,
        tags={"mambacl.sha256": chosen.sha256},
    )
    with tempfile.TemporaryDirectory() as folder:
        _write_model(Path(folder), chosen, card, logged.model_id, run_id)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=chosen.progress.step)])
    with store.globally():
        made = client.create_model_version(
            name,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            model_id=logged.model_id,
            description=card,
            tags=dict(tags) | {"mambacl.sha256": chosen.sha256, "mambacl.family": chosen.progress.spec.digest},
            await_creation_for=0,
        )
    number = int(made.version)
    client.set_logged_model_tags(
        logged.model_id, {"mlflow.modelVersions": json.dumps([{"name": name, "version": number}])}
    )
    store.set_alias(name, CANDIDATE, number)
    return number


def _ensure_model(store: Store, name: str) -> None:
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _write_model(folder: Path, chosen: Checkpoint, card: str, model_id: str, run_id: str) -> None:
    hashes = json.loads((chosen.path / MANIFEST).read_text())
    for file in FILES:
        shutil.copy(chosen.path / file, folder / file)
    kept = {file: hashes[file] for file in FILES}
    if (met := classes.beside(chosen.path) / classes.FILE).is_file():
        shutil.copy(met, folder)
        kept[classes.FILE] = hashlib.sha256(met.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(kept, indent=1))
    (folder / "README.md").write_text(card)
    (folder / "requirements.txt").write_text(f"mambacl=={installed('mambacl')}\n")
    (folder / "python_env.yaml").write_text(
        yaml.safe_dump({"python": platform.python_version(), "dependencies": ["-r requirements.txt"]})
    )
    content = {
        "artifact_path": "model",
        "model_id": model_id,
        "model_uuid": model_id.removeprefix("m-"),
        "run_id": run_id,
        "mlflow_version": installed("mlflow"),
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "python_version": platform.python_version(),
                "env": {"virtualenv": "python_env.yaml"},
            }
        },
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(content))


def find(reference: str, storage: StorageConfig) -> Reference:
    """The model that models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID or a folder names.

    Raises ConfigError with what there is where there is no such model.
    """
    if reference.startswith("models:/"):
        return _find_version(reference, storage)
    if reference.startswith("runs:/"):
        return _find_run(reference, storage)
    folder = Path(reference)
    if (folder / MANIFEST).is_file():
        return Reference(reference, Checkpoint(path=folder))
    if (folder / "checkpoints").is_dir():
        record = records.read(folder)
        return Reference(reference, checkpoint.best(folder), run_id=record.run_id if record else None)
    raise ConfigError(
        f"model: {reference!r} is no checkpoint or run folder, nor models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID"
    )


def _find_version(reference: str, storage: StorageConfig) -> Reference:
    store = Store(storage)
    name, alias, number = _parse_version(reference)
    try:
        found = (
            store.client.get_model_version_by_alias(name, alias)
            if alias
            else store.client.get_model_version(name, number)
        )
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ConfigError(_what_there_is(store, name, reference)) from None
    path = _folder_of(store, found, Path(storage.root))
    return Reference(reference, Checkpoint(path=path), run_id=found.run_id, name=name, version=int(found.version))


def _parse_version(reference: str) -> tuple[str, str | None, str]:
    rest = reference.removeprefix("models:/")
    name, _, alias = rest.partition("@")
    if alias:
        return name, alias, ""
    name, _, number = rest.partition("/")
    if not number.isdigit():
        raise ConfigError(f"model: {reference!r} must be models:/NAME@ALIAS or models:/NAME/VERSION")
    return name, None, number


def _what_there_is(store: Store, name: str, reference: str) -> str:
    models = {model.name: model for model in store.client.search_registered_models()}
    if name not in models:
        return f"model: no registered model {name!r}{nearest(name, list(models))}; there are: {', '.join(models) or 'none'}"
    aliases = ", ".join(
        f"@{alias} = {version}" for alias, version in store.client.get_registered_model(name).aliases.items()
    )
    numbers = ", ".join(str(found.version) for found in store.client.search_model_versions(f"name = '{name}'"))
    return f"model: {reference!r} does not exist; versions: {numbers}; aliases: {aliases or 'none'}"


def _folder_of(store: Store, found: ModelVersion, root: Path) -> Path:
    with store.globally():
        uri = store.client.get_model_version_download_uri(found.name, str(found.version))
        path = Path(uri.removeprefix("file://"))
        if path.is_dir():
            return path
        name = f"models:/{found.name}/{found.version}"
        identity = f"{store.uri} {name} {found.creation_timestamp}"
        return _brought(root, identity, lambda draft: download_artifacts(name, dst_path=draft))


def _brought(root: Path, identity: str, download: Callable[[str], str]) -> Path:
    """A folder that was downloaded once, where workers on all nodes find it. download: into a folder that is given."""
    place = root / "downloads" / hashlib.sha256(identity.encode()).hexdigest()[:24]
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as draft:
            found = Path(download(draft))
            with contextlib.suppress(OSError):  # another process was first
                found.rename(place)
    return place


def _find_run(reference: str, storage: StorageConfig) -> Reference:
    store, run_id = Store(storage), reference.removeprefix("runs:/")
    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ConfigError(f"model: MLflow at {store.uri} has no run {run_id!r}") from None
    folder = Path(run.data.tags.get("mambacl.folder", ""))
    if (folder / "checkpoints").is_dir():
        return Reference(reference, checkpoint.best(folder), run_id=run_id)
    identity = f"{store.uri} {reference} {run.info.end_time}"

    def download(draft: str) -> str:
        found = store.client.download_artifacts(run_id, "checkpoint", draft)
        if classes.FILE in {file.path for file in store.client.list_artifacts(run_id)}:
            store.client.download_artifacts(run_id, classes.FILE, found)
        return found

    return Reference(reference, Checkpoint(path=_brought(Path(storage.root), identity, download)), run_id=run_id)


def versions_of(store: Store, reference: Reference) -> list[tuple[str, str]]:
    """Name and number of the versions that a reference's model is known as."""
    if reference.name and reference.version:
        return [(reference.name, str(reference.version))]
    known = store.client.search_model_versions(f"tags.`mambacl.sha256` = '{reference.checkpoint.sha256}'")
    return [(version.name, str(version.version)) for version in known]


def registered(storage: StorageConfig) -> list[dict[str, Any]]:
    """All model versions, newest first, with their aliases."""
    store, rows = Store(storage), []
    for model in store.client.search_registered_models():
        aliases = store.client.get_registered_model(model.name).aliases
        for found in sorted(
            store.client.search_model_versions(f"name = '{model.name}'"), key=lambda v: -int(v.version)
        ):
            rows.append(
                {
                    "name": model.name,
                    "version": int(found.version),
                    "aliases": ", ".join(
                        alias for alias, number in aliases.items() if int(number) == int(found.version)
                    ),
                    "learner": found.tags.get("mambacl.learner", ""),
                    "score": found.tags.get("meta_val/score", ""),
                    "sha256": found.tags.get("mambacl.sha256", "")[:12],
                }
            )
    return rows
