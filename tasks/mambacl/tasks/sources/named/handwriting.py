"""Omniglot, EMNIST and CASIA-HWDB."""

import functools
import logging
import struct

import numpy as np

from mambacl.tasks.config import ConfigError
from mambacl.tasks.sources.decode import GNT_HEADER
from mambacl.tasks.sources.files import File, read
from mambacl.tasks.sources.listing import Listing
from mambacl.tasks.sources.named.dataset import Dataset, by_hand, customary_test, fetched, local

logger = logging.getLogger("mambacl")

EMNIST_HEADER = 16
EMNIST_BYTES = 28 * 28
CASIA_TEST = 1000


def list_omniglot(root: str, files: list[File]) -> Listing:
    """omniglot-py/images_background and images_evaluation/ALPHABET/characterNN/*.png; alphabets are groups, and the
    official split tests on the evaluation alphabets."""
    found = [
        (file.name, parts) for file in files if len(parts := file.name.split("/")) == 5 and parts[4].endswith(".png")
    ]
    character = [f"{parts[2]}/{parts[3]}" for _, parts in found]
    return Listing.of(
        path=[f"{root}/{name}" for name, _ in found],
        label=character,
        group=[parts[2] for _, parts in found],
        test=[c for c, (_, parts) in zip(character, found, strict=True) if parts[1] == "images_evaluation"],
        where=root,
    )


def fetch_omniglot(root: str) -> None:
    from mambacl.tasks.vision import datasets

    for background in (True, False):
        fetched("omniglot", functools.partial(datasets.Omniglot, local(root), background, download=True))


def list_emnist(root: str, files: list[File]) -> Listing:
    """The balanced split of EMNIST, 47 classes; training and test images together."""
    from mambacl.tasks.vision import datasets

    path, label, offset = [], [], []
    for train in (True, False):
        try:
            part = datasets.EMNIST(local(root), "balanced", train=train)
        except RuntimeError as error:
            raise ConfigError(f"task.root: {root}: {error}") from None
        path += [part.images_file] * len(part.targets)
        label += [part.classes[number] for number in part.targets.tolist()]
        offset.append(EMNIST_HEADER + EMNIST_BYTES * np.arange(len(part.targets)))
    offsets = np.concatenate(offset)
    return Listing.of(
        path, label, offset=offsets, size=np.full(len(offsets), EMNIST_BYTES), format="emnist", where=root
    )


def fetch_emnist(root: str) -> None:
    from mambacl.tasks.vision import datasets

    fetched("emnist", lambda: datasets.EMNIST(local(root), "balanced", download=True))


def list_casia(root: str, files: list[File]) -> Listing:
    """All .gnt files below the root, in the order of their names; records without pixels are left out, as the ancestors do."""
    path, label, offset, size, empty = [], [], [], [], 0
    for file in files:
        if not file.name.endswith(".gnt"):
            continue
        for tag, at, length in _records(f"{root}/{file.name}"):
            if length == GNT_HEADER.size:
                empty += 1
                continue
            path.append(f"{root}/{file.name}")
            label.append(tag)
            offset.append(at)
            size.append(length)
    if empty:
        logger.warning("%d records without pixels left out", empty)
    return Listing.of(
        path,
        label,
        offset=np.array(offset, np.int64),
        size=np.array(size, np.int64),
        format="gnt",
        test=customary_test(label, CASIA_TEST),
        where=root,
    )


def _records(path: str) -> list[tuple[str, int, int]]:
    """(character, offset, size) of each record of a .gnt file. Raises ConfigError where it is none."""
    data, found, at = read(path), [], 0
    while at < len(data):
        try:
            _, tag, width, height = GNT_HEADER.unpack_from(data, at)
            character = tag.rstrip(b"\0").decode("gbk")
        except (struct.error, UnicodeDecodeError):
            raise ConfigError(f"task.root: {path} has no .gnt record at byte {at}") from None
        length = GNT_HEADER.size + width * height
        found.append((character, at, length))
        at += length
    return found


SETS = {
    "omniglot": Dataset(
        list_omniglot, fetch_omniglot, ("omniglot-py/images_background", "omniglot-py/images_evaluation"), grey=True
    ),
    "emnist": Dataset(list_emnist, fetch_emnist, ("EMNIST/raw",), grey=True),
    "casia_hwdb": Dataset(
        list_casia,
        by_hand(
            "get the .gnt files of HWDB1.0 to 1.2 from http://www.nlpr.ia.ac.cn/databases/handwriting/Download.html"
        ),
        grey=True,
        fit="pad",
    ),
}
