"""An image bank: all images of a source in memory, sorted by class."""

import dataclasses
import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mambacl.tasks.config import ConfigError, nearest
from mambacl.tasks.images_config import ImagesConfig

logger = logging.getLogger("mambacl")

SUFFIXES = frozenset(Image.registered_extensions())


@dataclasses.dataclass(frozen=True)
class ImageBank:
    """Images of C classes. Those of class c are images[start[c] : start[c] + count[c]]."""

    images: Tensor
    """(n, channels, height, width) uint8."""
    start: np.ndarray
    """(C,) int64."""
    count: np.ndarray
    """(C,) int64."""
    group: np.ndarray
    """(C,) the group of each class; its own number where classes have no groups."""
    digest: str
    """SHA-256 of images, classes and groups."""

    @classmethod
    def of(cls, images: np.ndarray, label: np.ndarray, group: np.ndarray | None = None) -> "ImageBank":
        """Sort images u8 (n,H,W) or (n,H,W,channels) by label (n,); group (n,) must be one value a class."""
        order = np.argsort(label, kind="stable")
        _, start, count = np.unique(label[order], return_index=True, return_counts=True)
        if group is None:
            groups = np.arange(len(start))
        else:
            sorted_group = group[order]
            groups = sorted_group[start]
            if not np.array_equal(np.repeat(groups, count), sorted_group):
                raise ConfigError("task.group: some class has images of more than one group")
        images = np.ascontiguousarray(images[order])
        digest = hashlib.sha256(images.data)
        for part in (np.asarray(images.shape), count, np.unique(groups, return_inverse=True)[1]):
            digest.update(np.ascontiguousarray(part, np.int64).data)
        pixels = torch.from_numpy(images)
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        return cls(pixels, start, count, groups, digest.hexdigest())

    def keep(self, classes: np.ndarray) -> "ImageBank":
        """The bank with these classes only; images are shared."""
        return dataclasses.replace(
            self, start=self.start[classes], count=self.count[classes], group=self.group[classes]
        )


def load_bank(config: ImagesConfig) -> ImageBank:
    """Read the source that config.path names. Raises ConfigError that names the field or the file at fault."""
    path = Path(config.path).expanduser()
    if path.is_dir():
        return _read_folder(path, config)
    if not path.is_file():
        raise ConfigError(f"task.path: no file or folder at {path}")
    if path.suffix != ".npz":
        raise ConfigError(f"task.path: must be an .npz file or a folder with one folder a class, got {path}")
    return _read_npz(path, config)


def _read_npz(path: Path, config: ImagesConfig) -> ImageBank:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files if name in ("images", "label", config.group)}
            names = file.files
    except Exception as error:
        raise ConfigError(f"task.path: {path} cannot be read as .npz: {error}") from None
    for name in filter(None, ("images", "label", config.group)):
        if name not in columns:
            field = "task.group" if name == config.group else "task.path"
            raise ConfigError(
                f"{field}: {path} has no column {name!r}{nearest(name, names)}; columns: {', '.join(names)}"
            )
    images, label = columns["images"], columns["label"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise ConfigError(
            f"task.path: images must be uint8 [n,H,W] or [n,H,W,3], got {images.dtype} {list(images.shape)}"
        )
    if label.shape != images.shape[:1]:
        raise ConfigError(f"task.path: label must be [{len(images)}] like images, got {list(label.shape)}")
    group = columns.get(config.group) if config.group else None
    if group is not None and group.shape != label.shape:
        raise ConfigError(
            f"task.group: {config.group} must have one value an image, [{len(images)}], got {list(group.shape)}"
        )
    return ImageBank.of(images, label, group)


def _read_folder(path: Path, config: ImagesConfig) -> ImageBank:
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    files = [
        (number, file)
        for number, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise ConfigError(f"task.path: {path} has no images in class folders")
    images, label, unreadable = [], [], []
    for number, file in files:
        try:
            with Image.open(file) as image:
                small = image.convert("L" if config.grey else "RGB").resize(
                    (config.size, config.size), Image.Resampling.BILINEAR
                )
        except OSError as error:
            unreadable.append(file)
            logger.warning("unreadable image left out: %s (%s)", file, error)
            if len(unreadable) > config.unreadable_limit:
                raise ConfigError(
                    f"task.path: unreadable image {file}, number {len(unreadable)}; "
                    f"task.unreadable_limit allows {config.unreadable_limit}"
                ) from None
            continue
        images.append(np.asarray(small))
        label.append(number)
    if unreadable:
        logger.warning("%d of %d images left out as unreadable", len(unreadable), len(files))
    return ImageBank.of(np.stack(images), np.asarray(label))
