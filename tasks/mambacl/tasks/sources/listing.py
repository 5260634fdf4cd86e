"""A listing: where the bytes of every image of a source are, and what each shows. Nothing is decoded for it."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from PIL import Image

from mambacl.tasks.config import ConfigError
from mambacl.tasks.labels import Labels
from mambacl.tasks.sources.decode import DECODERS, Format
from mambacl.tasks.sources.files import SourceAway, read

SUFFIXES = frozenset(Image.registered_extensions())

Picture = tuple[Image.Image | None, str]
"""An image in its own size, or None and why there is none."""


@dataclasses.dataclass(frozen=True)
class Entries:
    """Some images as byte ranges of files: a piece of work that can be sent to any machine that sees the files."""

    path: Sequence[str]
    """(m,) the file that holds each image."""
    offset: np.ndarray
    """(m,) int64: where its bytes begin."""
    size: np.ndarray
    """(m,) int64: how many there are; -1 for the whole file."""
    format: Format

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, images: slice) -> Self:
        return dataclasses.replace(self, path=self.path[images], offset=self.offset[images], size=self.size[images])

    def pictures(self, content: "hashlib._Hash") -> Iterator[Picture]:
        """Each image in turn; the bytes of those that could be decoded are added to `content`.

        Raises SourceAway where a URL does not answer: that says nothing about the image.
        """
        for path, offset, size in zip(self.path, self.offset.tolist(), self.size.tolist(), strict=True):
            try:
                data = read(path, offset, size)
                image = DECODERS[self.format](data)
            except SourceAway:
                raise
            except Exception as error:  # decoders of broken files raise all kinds of errors
                where = path if size < 0 else f"{path} at byte {offset}"
                yield None, f"{where} ({' '.join(str(error).split()) or type(error).__name__})"
                continue
            content.update(data)
            yield image, ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """All images of a source, in the order of their classes."""

    entries: Entries
    labels: Labels

    @classmethod
    def of(
        cls,
        path: list[str],
        label: Sequence[str] | np.ndarray,
        domain: Sequence[str] | np.ndarray | None = None,
        group: Sequence[str] | np.ndarray | None = None,
        offset: np.ndarray | None = None,
        size: np.ndarray | None = None,
        format: Format = "image",
        test: Sequence[str] | None = None,
        where: str = "",
    ) -> Self:
        """Sort images (n,) by class. `where` names the source in the ConfigError that an empty one raises."""
        if not len(path):
            raise ConfigError(f"task.path: {where} has no images")
        groups = None if group is None else np.asarray(group)
        labels, order = Labels.of(np.asarray(label), groups, None if domain is None else np.asarray(domain), test)
        whole = np.full(len(order), -1)
        entries = Entries(
            path=[path[i] for i in order.tolist()],
            offset=(np.zeros(len(order), np.int64) if offset is None else np.asarray(offset, np.int64))[order],
            size=(whole if size is None else np.asarray(size, np.int64))[order],
            format=format,
        )
        return cls(entries, labels)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Some images that are in memory already, for encoders to work on."""

    images: np.ndarray
    """(m, channels, height, width) uint8."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, images: slice) -> Self:
        return dataclasses.replace(self, images=self.images[images])

    def pictures(self, content: "hashlib._Hash") -> Iterator[Picture]:
        """Each image in turn; its bytes are added to `content`."""
        content.update(np.asarray(self.images.shape[1:], np.int64).tobytes())
        for image in self.images:
            content.update(np.ascontiguousarray(image).data)
            yield Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)), ""


Part = Entries | Pixels
