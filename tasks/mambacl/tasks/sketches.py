"""Sketches of classes: a few hashes of what a class's images hold, by which it is known again in another source or under
another name.

Shapes: n images, C classes.
"""

import hashlib
import itertools

import numpy as np

HASHES = 16
"""Of a sketch, the smallest: of two classes that have a quarter of their images in common, 1 in 100 share none of them."""


def hashes_of(images: np.ndarray) -> np.ndarray:
    """A hash of the bytes of each image, or of its features, (n,) uint64."""
    if not len(images):
        return np.zeros(0, np.uint64)
    content, size = np.ascontiguousarray(images).data.cast("B"), images[0].nbytes
    starts = range(0, len(content), size)
    return np.frombuffer(
        b"".join(hashlib.blake2b(content[at : at + size], digest_size=8).digest() for at in starts), "<u8"
    )


def sketches_of(hashes: np.ndarray, label: np.ndarray, classes: int) -> list[str]:
    """The smallest hashes of each class's images, as hexadecimal digits one after the other. label: (n,) class numbers.

    An image that several classes have, such as an empty one, tells none of them from the others: it counts only where a class
    has no image of its own.
    """
    values, value = np.unique(hashes, return_inverse=True)
    value, owner = np.divmod(np.unique(value * classes + label), classes)
    shared = np.bincount(value)[value] > 1
    without_own = np.bincount(owner[~shared], minlength=classes) == 0
    kept = ~shared | without_own[owner]
    value, owner = value[kept], owner[kept]
    order = np.argsort(owner, kind="stable")
    value, owner = value[order], owner[order]
    smallest = np.arange(len(owner)) - np.searchsorted(owner, owner) < HASHES
    digits = [f"{number:016x}" for number in values[value[smallest]].tolist()]
    ends = np.cumsum(np.bincount(owner[smallest], minlength=classes)).tolist()
    return ["".join(digits[start:end]) for start, end in itertools.pairwise([0, *ends])]


def hashes_in(sketch: str) -> list[str]:
    """The hashes of a sketch."""
    return [sketch[at : at + 16] for at in range(0, len(sketch), 16)]
