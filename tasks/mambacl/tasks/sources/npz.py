"""An .npz file of images, read into memory as it is."""

import io

import numpy as np

from mambacl.tasks.config import ConfigError, nearest
from mambacl.tasks.images_config import ImagesConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.sources.files import SourceAway, is_url, read


def read_npz(config: ImagesConfig, path: str) -> tuple[np.ndarray, Labels]:
    """images u8 (n, H, W) or (n, H, W, channels) in the order of their classes, and their labels.

    Where the file has a column of names for one of numbers (font_names for font), domains and classes have these names.
    """
    known = {"images", "label", "label_names", config.group, config.domain, f"{config.domain}_names"}
    try:
        with np.load(io.BytesIO(read(path)) if is_url(path) else path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files if name in known}
            names = file.files
    except SourceAway:
        raise
    except Exception as error:
        raise ConfigError(f"task.path: {path} cannot be read as .npz: {error}") from None
    wanted = {"images": "path", "label": "path"}
    wanted |= {column: field for field in ("group", "domain") if (column := getattr(config, field))}
    for name, field in wanted.items():
        if name not in columns:
            raise ConfigError(
                f"task.{field}: {path} has no column {name!r}{nearest(name, names)}; columns: {', '.join(names)}"
            )
    images, label = columns["images"], columns["label"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise ConfigError(
            f"task.path: images must be uint8 [n,H,W] or [n,H,W,3], got {images.dtype} {list(images.shape)}"
        )
    if label.shape != images.shape[:1]:
        raise ConfigError(f"task.path: label must be [{len(images)}] like images, got {list(label.shape)}")
    for name, field in ((config.group, "group"), (config.domain, "domain")):
        if name is not None and columns[name].shape != label.shape:
            raise ConfigError(
                f"task.{field}: {name} must have one value an image, [{len(images)}], got {list(columns[name].shape)}"
            )
    domain = _named(columns, config.domain) if config.domain else None
    labels, order = Labels.of(label, columns[config.group] if config.group else None, domain)
    if (class_names := columns.get("label_names")) is not None and np.issubdtype(label.dtype, np.integer):
        numbers = np.unique(label)
        if numbers[0] >= 0 and numbers[-1] < len(class_names):
            labels = labels.named(class_names[numbers])
    return np.ascontiguousarray(images[order]), labels


def _named(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A column of numbers as one of names, where the file has them."""
    column, names = columns[name], columns.get(f"{name}_names")
    if names is None or not np.issubdtype(column.dtype, np.integer):
        return column
    if column.min() < 0 or column.max() >= len(names):
        raise ConfigError(f"task.domain: {name} has numbers beyond the {len(names)} of {name}_names")
    return names[column]
