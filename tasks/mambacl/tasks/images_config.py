"""Configs of the task families made of images."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.config import Config
from mambacl.tasks.targets_config import TargetConfig


class AugmentConfig(Config):
    """Seeded changes of meta-train images; meta-val and meta-test are never augmented."""

    turns: bool = True
    """Quarter turns of a class are new classes: four times as many."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation of an image."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Largest shift, as a share of the image's side."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest change of size: 0.15 is between 85 % and 115 %."""


class ImageFamilyConfig(TargetConfig):
    """What the image families share."""

    augment: AugmentConfig | None = AugmentConfig()
    """Augmentation of meta-train images, or null for none."""
    drop_small_classes: bool = False
    """Leave out classes with fewer images than an episode needs, rather than refuse the data."""


class ImagesConfig(ImageFamilyConfig):
    """Classes of images from a file or folder."""

    name: Literal["images"] = "images"
    """Which task family."""
    path: str
    """An .npz file with `images` u8 [n,H,W] or [n,H,W,3] and `label` [n], or a folder with one folder a class."""
    group: str | None = None
    """Column of the .npz that keeps classes together when splitting, such as alphabet."""
    size: Annotated[int, Field(ge=8, le=512)] = 32
    """Side in pixels to which the images of a folder are resized."""
    grey: bool = False
    """Read the images of a folder as grey values."""
    unreadable_limit: Annotated[int, Field(ge=0)] = 0
    """How many unreadable files of a folder are left out, each named in the log, before the data are refused."""


class GlyphsConfig(ImageFamilyConfig):
    """Letters of all scripts, rendered from the twelve DejaVu faces that come with matplotlib: needs no download."""

    name: Literal["glyphs"] = "glyphs"
    """Which task family."""
    tasks: Annotated[int, Field(ge=1)] = 10
    by_script: bool = False
    """Keep the letters of a script (Latin, Greek, ...) together when splitting."""
