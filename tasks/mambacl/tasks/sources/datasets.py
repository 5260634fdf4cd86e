"""The public data sets by name."""

from pathlib import Path

from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import DatasetConfig
from mambacl.tasks.sources.files import File, absolute, files_below, fingerprint, is_folder, is_url
from mambacl.tasks.sources.named import fine_grained, handwriting, objects
from mambacl.tasks.sources.named.dataset import Dataset
from mambacl.tasks.sources.source import Source

SETS: dict[str, Dataset] = handwriting.SETS | objects.SETS | fine_grained.SETS


def open_dataset(config: DatasetConfig) -> Source:
    """The source of a named data set, fetched first where the config asks for it. Raises ConfigError where it is not there."""
    dataset, root = SETS[config.dataset], absolute(config.root)
    if missing := _missing(dataset, root):
        if not config.download:
            raise ConfigError(
                f"task.root: {config.dataset} is not at {root} (no {', '.join(missing)}); task.download: true fetches it"
            )
        if not is_url(root):
            Path(root).mkdir(parents=True, exist_ok=True)
        dataset.fetch(root)
        if missing := _missing(dataset, root):
            raise ConfigError(f"task.root: {config.dataset} was fetched but has no {', '.join(missing)}")
    files = _files(dataset, root)
    return Source(
        name=config.dataset,
        key={"dataset": config.dataset, "root": root},
        fingerprint=fingerprint(files),
        list=lambda: dataset.list(root, files),
        grey=config.grey or dataset.grey,
        fit=dataset.fit,
        field="task.root",
    )


def _missing(dataset: Dataset, root: str) -> list[str]:
    folders = [f"{root}/{folder}" for folder in dataset.folders] or [root]
    return [folder for folder in folders if not is_folder(folder)]


def _files(dataset: Dataset, root: str) -> list[File]:
    """The files of the data set, each named from the root."""
    if not dataset.folders:
        return files_below(root)
    return [
        file._replace(name=f"{folder}/{file.name}")
        for folder in dataset.folders
        for file in files_below(f"{root}/{folder}")
    ]
