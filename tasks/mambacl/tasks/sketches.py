"""Sketches of classes: a few hashes of a class's images, by which it is known again in another source or under another name.

Images are hashed as they are in their source, before they are resized or encoded: features differ in their last bits from machine to
machine.

Shapes: n images, C classes.
"""

import hashlib
import itertools

import numpy as np
from PIL import Image

HASHES = 16
"""Of a sketch, the smallest: of two classes that have a quarter of their images in common, 1 in 100 share none of them."""


def hash_of(pixels: np.ndarray) -> int:
    """64 bits of the pixels u8 (H, W) or (H, W, 3) of an image. One whose channels are the same is one of grey values."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    content = hashlib.blake2b(np.asarray(pixels.shape, "<i8").tobytes(), digest_size=8)
    content.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(content.digest(), "little")


def hash_of_picture(image: Image.Image) -> int:
    """The same of an image as it was decoded."""
    return hash_of(np.asarray(image if image.mode == "L" else image.convert("RGB")))


def hashes_of(images: np.ndarray) -> np.ndarray:
    """A hash of each of the images u8 (n, channels, H, W), (n,) uint64."""
    return np.array([hash_of(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images], np.uint64)


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
