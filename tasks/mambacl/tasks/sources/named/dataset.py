"""What a named data set is, and how one is fetched."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import tenacity

from mambacl.tasks.config import ConfigError
from mambacl.tasks.sources import files
from mambacl.tasks.sources.decode import Fit
from mambacl.tasks.sources.files import File, SourceAway, is_url
from mambacl.tasks.sources.listing import Listing

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that lies below some root."""

    list: Callable[[str, list[File]], Listing]
    """From the root, a path or URL, and the files of its folders, each named from the root."""
    fetch: Callable[[str], None]
    """Brings it below the root. Raises ConfigError where its owners do not allow that."""
    folders: tuple[str, ...] = ()
    """Folders below the root that hold it; none: the root itself."""
    grey: bool = False
    fit: Fit = "stretch"


def archives(*sources: tuple[str, str], folder: str = "") -> Callable[[str], None]:
    """A `fetch` of archives, as (URL, MD5), that are unpacked below root/folder."""

    def fetch(root: str) -> None:
        from mambacl.tasks.vision import download_and_extract_archive

        for url, md5 in sources:
            where = Path(root) / folder
            fetched(url, lambda url=url, md5=md5, where=where: download_and_extract_archive(url, str(where), md5=md5))

    return fetch


def by_hand(what: str) -> Callable[[str], None]:
    """A `fetch` that says what to do instead."""

    def fetch(root: str) -> None:
        raise ConfigError(f"task.download: not possible for this data set: {what}, below {root}")

    return fetch


def fetched(what: str, action: Callable[[], T]) -> T:
    """The result of a download, after several tries. Raises SourceAway in one line when all of them failed."""
    try:
        return tenacity.retry(
            stop=tenacity.stop_after_attempt(files.TRIES),
            wait=tenacity.wait_exponential(files.PAUSE),
            retry=tenacity.retry_if_exception_type(OSError),
            reraise=True,
        )(action)()
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError for a wrong checksum
        raise SourceAway(f"{what} cannot be fetched: {' '.join(str(error).split())}") from None


def local(root: str) -> str:
    """The root, for readers that need files on a disk."""
    if is_url(root):
        raise ConfigError(f"task.root: this data set is read from local folders only, got {root}")
    return root


def customary_test(labels: Sequence[str], count: int) -> list[str] | None:
    """The `count` classes that Lee et al. (2023) test on: class keys in the order of their first images, shuffled by
    Python's generator with seed 0. None where there are too few classes for it."""
    keys = list(dict.fromkeys(labels))
    random.Random(0).shuffle(keys)
    return keys[:count] if count < len(keys) else None
