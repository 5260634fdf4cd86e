"""From bytes to images, for the formats in which the sources hold them."""

import io
import struct
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

Format = Literal["image", "gnt", "cifar", "emnist"]
Fit = Literal["stretch", "pad"]

GNT_HEADER = struct.Struct("<I2sHH")
"""A record of CASIA's .gnt files: its size, the character in GBK, width, height; then the grey values."""


def shrink(image: Image.Image, size: int, grey: bool, fit: Fit) -> np.ndarray:
    """The image as uint8 (channels, size, size): stretched to the square, or put in the middle of a white one."""
    image = image.convert("L" if grey else "RGB")
    if fit == "stretch":
        small = image.resize((size, size), Image.Resampling.BILINEAR)
    else:
        scale = size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = Image.new(image.mode, (size, size), "white")
        small.paste(image.resize((width, height)), ((size - width) // 2, (size - height) // 2))
    pixels = np.asarray(small)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _image(data: bytes) -> Image.Image:
    """Any file that PIL reads."""
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    image.load()
    return image


def _gnt(data: bytes) -> Image.Image:
    """One record of a .gnt file, with its header."""
    _, _, width, height = GNT_HEADER.unpack_from(data)
    return Image.fromarray(np.frombuffer(data, np.uint8, offset=GNT_HEADER.size).reshape(height, width))


def _cifar(data: bytes) -> Image.Image:
    """32 x 32 pixels, plane by plane."""
    return Image.fromarray(np.frombuffer(data, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0))


def _emnist(data: bytes) -> Image.Image:
    """28 x 28 grey values, stored column by column."""
    return Image.fromarray(np.frombuffer(data, np.uint8).reshape(28, 28).T)


DECODERS: dict[Format, Callable[[bytes], Image.Image]] = {
    "image": _image,
    "gnt": _gnt,
    "cifar": _cifar,
    "emnist": _emnist,
}
