"""The embedded image source: letters of all scripts in twelve typefaces, each image turned, moved and resized once.

Rendered from the DejaVu fonts that matplotlib ships, and kept in a cache file from then on.
"""

import hashlib
import tempfile
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from mambacl.tasks.labels import Labels
from mambacl.tasks.randomness import generator
from mambacl.tasks.store import cache_folder
from mambacl.tasks.transforms import affine

SIDE = 32
FACES = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, slant in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slant}", f"-Bold{slant}")
)
VERSION = "1"  # of the rendering below: part of the cache's name

# The change that belongs to the data, in every split: without it the letters of a class differ so little that
# the nearest class mean on pixels is right 96 % of the time at 10 x 5, and nothing is left to learn.
DEGREES, SHIFT, SCALE = 20.0, 4 / SIDE, 0.2


def load_glyphs(by_script: bool) -> tuple[np.ndarray, Labels]:
    """About 1,400 classes of 12 images u8 (32, 32), ink = 255; groups are scripts where asked for, domains are typefaces."""
    path = _cache_path()
    if not path.is_file():
        _write(path, *_render())
    with np.load(path, allow_pickle=False) as file:
        images, label, script = file["images"], file["label"], file["script"]
    faces = np.tile([face.removeprefix("DejaVu").removesuffix(".ttf") for face in FACES], len(script))
    labels, order = Labels.of(label, script[label] if by_script else None, faces)
    return images[order], labels


def _cache_path() -> Path:
    return cache_folder() / f"glyphs-{fonts_digest()[:12]}.npz"


def fonts_digest() -> str:
    """SHA-256 of the fonts and of the version of what is drawn with them."""
    fonts = hashlib.sha256(VERSION.encode())
    for face in FACES:
        fonts.update(_font_file(face).read_bytes())
    return fonts.hexdigest()


def _font_file(face: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face


def _write(path: Path, images: np.ndarray, label: np.ndarray, script: np.ndarray) -> None:
    # Several workers may render at once: each writes a file of its own and renames it into place.
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, images=images, label=label, script=script)
    Path(file.name).rename(path)


def _render() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """images (n, 32, 32) u8, label (n,) class numbers, script (C,) names."""
    letters = _letters()
    plain = np.stack([[_draw(font, letter) for letter in letters] for font in _fonts()], axis=1)
    # Look-alikes (Latin A, Greek Alpha, Cyrillic A) are one class: the first of equal bitmaps in the plain faces.
    _, distinct = np.unique(plain[:, ::4].reshape(len(letters), -1), axis=0, return_index=True)
    distinct.sort()
    images = torch.from_numpy(plain[distinct]).flatten(0, 1).unsqueeze(1)
    draw = generator(0, "glyphs").uniform(-1, 1, (len(images), 4))
    images = affine(images, torch.from_numpy(draw).float() * torch.tensor([DEGREES, SHIFT, SHIFT, SCALE]))
    script = np.array([unicodedata.name(letters[i]).split()[0] for i in distinct])
    return images.squeeze(1).numpy(), np.repeat(np.arange(len(distinct)), len(FACES)), script


def _letters() -> list[str]:
    """Letters that every face can draw, in code-point order."""
    drawable = set.intersection(*(set(FT2Font(str(_font_file(face))).get_charmap()) for face in FACES))
    return [
        chr(c)
        for c in sorted(drawable)
        if unicodedata.category(chr(c)).startswith("L") and unicodedata.name(chr(c), "")
    ]


def _fonts() -> list[ImageFont.FreeTypeFont]:
    return [ImageFont.truetype(_font_file(face), size=22, layout_engine=ImageFont.Layout.BASIC) for face in FACES]


def _draw(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    """The letter's ink centred in the image, (32, 32) u8."""
    image = Image.new("L", (SIDE, SIDE))
    left, top, right, bottom = font.getbbox(letter)
    ImageDraw.Draw(image).text(((SIDE - left - right) / 2, (SIDE - top - bottom) / 2), letter, fill=255, font=font)
    return np.asarray(image)
