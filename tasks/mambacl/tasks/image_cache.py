"""The cache of a source's images: decoded and resized once."""

import dataclasses
import hashlib
from typing import Any, ClassVar

import numpy as np

from mambacl.tasks.labels import Labels
from mambacl.tasks.sketches import hash_of_picture
from mambacl.tasks.sources.decode import Fit, shrink
from mambacl.tasks.sources.listing import Part
from mambacl.tasks.store import Chunk

VERSION = 1
"""Of decoding and resizing: raise it when pixels change, and old caches are not used."""
CHUNK_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Shrink:
    """Work: a part's images as uint8 (k, channels, size, size)."""

    size: int
    grey: bool
    fit: Fit

    threads: ClassVar[bool] = True

    @property
    def step(self) -> int:
        return max(1, min(8192, CHUNK_BYTES // ((1 if self.grey else 3) * self.size**2)))

    @property
    def key(self) -> dict[str, Any]:
        """What decides the pixels, besides the source."""
        return {"pixels": VERSION} | dataclasses.asdict(self)

    def __call__(self, part: Part) -> Chunk:
        content, rows, kept, faults, hashes = hashlib.sha256(), [], [], [], []
        for image, fault in part.pictures(content):
            kept.append(image is not None)
            if image is None:
                faults.append(fault)
            else:
                rows.append(shrink(image, self.size, self.grey, self.fit))
                hashes.append(hash_of_picture(image))
        shape = (0, 1 if self.grey else 3, self.size, self.size)
        found = np.stack(rows) if rows else np.zeros(shape, np.uint8)
        return Chunk(found, np.array(kept), faults, content.hexdigest(), np.array(hashes, np.uint64))

    def summary(self) -> "PixelDigest":
        return PixelDigest()


class PixelDigest:
    """SHA-256 of images, classes and groups, the same for images in memory and in a cache."""

    def __init__(self) -> None:
        self.content = hashlib.sha256()
        self.shape: tuple[int, ...] = ()

    def add(self, chunk: Chunk) -> None:
        # As rows of pixels, with the channels of a pixel together: the order in which arrays of images come.
        rows = chunk.rows[:, 0] if chunk.rows.shape[1] == 1 else chunk.rows.transpose(0, 2, 3, 1)
        self.update(np.ascontiguousarray(rows))

    def update(self, images: np.ndarray) -> None:
        """Further images, u8 (k, H, W) or (k, H, W, channels)."""
        self.content.update(images.data)
        self.shape = images.shape[1:]

    def facts(self, labels: Labels) -> dict[str, Any]:
        content = self.content.copy()
        for part in (
            np.asarray((len(labels.label), *self.shape)),
            labels.count,
            np.unique(labels.group, return_inverse=True)[1],
        ):
            content.update(np.ascontiguousarray(part, np.int64).data)
        return {"digest": content.hexdigest()}
