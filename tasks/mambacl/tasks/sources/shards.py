"""Tar shards in WebDataset's layout: KEY.jpg beside KEY.cls, or beside KEY.json with the fields class, domain, group.

Only headers and labels are read for the listing: images are byte ranges of the shards.
"""

import json
import re
import tarfile
from typing import Any

import numpy as np

from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import ImagesConfig
from mambacl.tasks.sources.files import FINAL, open_file
from mambacl.tasks.sources.folder import is_image
from mambacl.tasks.sources.listing import Listing

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def shard_paths(path: str) -> list[str]:
    """The shards of a path such as train-{000000..000146}.tar; any other path is one shard."""
    if not (found := RANGE.search(path)):
        return [path]
    low, high = found.groups()
    return [
        shard
        for number in range(int(low), int(high) + 1)
        for shard in shard_paths(f"{path[: found.start()]}{number:0{len(low)}}{path[found.end() :]}")
    ]


def list_shards(config: ImagesConfig, paths: list[str]) -> Listing:
    """The images of all shards. Raises ConfigError for an image without a class, or a shard that is no plain tar file."""
    rows: list[tuple[str, int, int, dict[str, Any]]] = []
    for path in paths:
        rows += _read_shard(path)
    wanted = {"class": "task.path"}
    wanted |= {column: f"task.{field}" for field in ("domain", "group") if (column := getattr(config, field))}
    for path, offset, _, facts in rows:
        for column, field in wanted.items():
            if column not in facts:
                key = facts["__key__"]
                raise ConfigError(
                    f"{field}: {path}: {key} at byte {offset} has no {column} (in {key}.json or {key}.cls)"
                )
    columns = {column: np.array([str(facts[column]) for *_, facts in rows]) for column in wanted}
    return Listing.of(
        path=[path for path, *_ in rows],
        label=columns["class"],
        domain=columns[config.domain] if config.domain else None,
        group=columns[config.group] if config.group else None,
        offset=np.array([offset for _, offset, _, _ in rows], np.int64),
        size=np.array([size for _, _, size, _ in rows], np.int64),
        where=", ".join(paths[:3]),
    )


def _read_shard(path: str) -> list[tuple[str, int, int, dict[str, Any]]]:
    """(shard, offset, size, facts) of each image; files of one key follow each other."""
    found: list[tuple[str, int, int, dict[str, Any]]] = []
    facts: dict[str, Any] = {}
    try:
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for member in shard:
                if not member.isfile():
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = folder + slash + stem
                if facts.get("__key__") != key:
                    facts = {"__key__": key}
                if suffix in ("cls", "json"):
                    content = shard.extractfile(member)
                    assert content is not None
                    text = content.read().decode()
                    facts |= {"class": text.strip()} if suffix == "cls" else json.loads(text)
                elif is_image(f".{suffix}"):
                    found.append((path, member.offset_data, member.size, facts))
    except (*FINAL, ValueError, TypeError) as error:
        raise ConfigError(f"task.path: {path} is no shard (an uncompressed .tar file): {error}") from None
    return found
