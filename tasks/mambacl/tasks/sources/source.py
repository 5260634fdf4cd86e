"""Which source a config names, and how its files are found, told from changed ones, and listed."""

import dataclasses
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import DatasetConfig, ImagesConfig
from mambacl.tasks.sources.decode import Fit
from mambacl.tasks.sources.files import File, absolute, facts, files_below, fingerprint, is_folder, is_url
from mambacl.tasks.sources.folder import list_folder
from mambacl.tasks.sources.listing import Listing
from mambacl.tasks.sources.shards import list_shards, shard_paths
from mambacl.tasks.sources.table import SUFFIXES as TABLES
from mambacl.tasks.sources.table import image_paths, list_table, read_table


@dataclasses.dataclass(frozen=True)
class Source:
    """Image files, found but not yet listed."""

    name: str
    """A word for people, in the names of caches."""
    key: dict[str, Any]
    """What is read and how: equal keys and equal files give equal listings."""
    fingerprint: str
    """Of the files; changes when one is added, removed or written again."""
    list: Callable[[], Listing]
    """Slow for shards and lists, so called only when there is no cache."""
    grey: bool = False
    fit: Fit = "stretch"
    field: str = "task.path"
    """The config's field that names it."""


def open_source(config: ImagesConfig | DatasetConfig) -> Source:
    """The source of a family's images. Raises ConfigError where there is none."""
    if isinstance(config, DatasetConfig):
        from mambacl.tasks.sources.datasets import open_dataset

        return open_dataset(config)
    path = absolute(config.path)
    if path.endswith(".tar"):
        return _open_shards(config, path)
    if path.endswith(TABLES):
        return _open_table(config, path)
    if is_folder(path):
        return _open_folder(config, path)
    existing(path)
    raise ConfigError(
        f"task.path: must be an .npz, .csv, .parquet or .tar file or a folder with one folder a class, got {path}"
    )


def existing(path: str, field: str = "task.path") -> File:
    """The facts of a file. Raises ConfigError where there is none."""
    try:
        return facts(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{field}: no file or folder at {path}") from None


def _open_shards(config: ImagesConfig, path: str) -> Source:
    shards = shard_paths(path)
    return Source(
        name=PurePosixPath(path).parent.name or "shards",
        key={"shards": path, "group": config.group, "domain": config.domain},
        fingerprint=fingerprint(existing(shard) for shard in shards),
        list=lambda: list_shards(config, shards),
        grey=config.grey,
    )


def _open_table(config: ImagesConfig, path: str) -> Source:
    files = [existing(path)]
    if not is_url(path):  # a look at each image is cheap on a disk, and a request each at a URL
        files += [_seen(image) for image in image_paths(path, read_table(config, path)) if not is_url(image)]
    return Source(
        name=PurePosixPath(path).stem,
        key={"list": path, "group": config.group, "domain": config.domain},
        fingerprint=fingerprint(files),
        list=lambda: list_table(config, path),
        grey=config.grey,
    )


def _seen(path: str) -> File:
    try:
        return facts(path)
    except OSError:
        return File(path, -1, "missing")


def _open_folder(config: ImagesConfig, path: str) -> Source:
    for field in ("group", "domain"):
        if getattr(config, field) is not None:
            raise ConfigError(
                f"task.{field}: the folder {path} has no columns; task.layout: {field}/class reads {field}s from its folders"
            )
    files = files_below(path)
    return Source(
        name=PurePosixPath(path).name or "images",
        key={"folder": path, "layout": config.layout},
        fingerprint=fingerprint(files),
        list=lambda: list_folder(path, files, config.layout),
        grey=config.grey,
    )
