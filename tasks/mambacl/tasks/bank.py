"""An image bank: all images of a source, or their features, sorted by class, in memory or mapped from a cache."""

import dataclasses
import functools
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import Tensor

from mambacl.tasks.config import ConfigError
from mambacl.tasks.features import Encode, FeatureStatistics, statistics_of
from mambacl.tasks.image_cache import PixelDigest, Shrink
from mambacl.tasks.images_config import DatasetConfig, GlyphsConfig, ImageFamilyConfig, ImagesConfig, SourceConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.prepare import LABELS, Recipe, build_here, check_unreadable, read_hashes
from mambacl.tasks.sketches import hashes_of, sketches_of
from mambacl.tasks.sources.files import absolute, fingerprint
from mambacl.tasks.sources.listing import Part, Pixels
from mambacl.tasks.sources.npz import read_npz
from mambacl.tasks.sources.source import existing, open_source
from mambacl.tasks.store import Store


@dataclasses.dataclass(frozen=True)
class ImageBank:
    """Images of C classes. Those of class c are images[start[c] : start[c] + count[c]]."""

    images: Tensor
    """(n, channels, height, width) uint8, or features (n, F) float16 or float32."""
    start: np.ndarray
    """(C,) int64."""
    count: np.ndarray
    """(C,) int64."""
    group: np.ndarray
    """(C,) the group of each class; its own number where classes have no groups."""
    digest: str
    """SHA-256 of images, classes and groups; for features of what they are computed from."""
    classes: np.ndarray
    """(C,) names of the classes."""
    domain: np.ndarray | None = None
    """(n,) int64 the domain of each image, or None where there are none."""
    domains: np.ndarray = dataclasses.field(default_factory=lambda: np.array([], str))
    """(D,) names of the domains."""
    test: np.ndarray | None = None
    """(C,) bool: the classes that an official split tests on, or None."""
    statistics: FeatureStatistics | None = None
    """Of the features, or None for images."""
    prepared: bool = False
    """Whether images were resized or encoded, and are not as they are in their source."""
    hashes: np.ndarray | None = None
    """(n,) uint64, of each image in its source, where they were kept when it was prepared."""

    @classmethod
    def of(cls, images: np.ndarray, label: np.ndarray, group: np.ndarray | None = None) -> "ImageBank":
        """Sort images u8 (n,H,W) or (n,H,W,channels) by label (n,); group (n,) must be one value a class."""
        labels, order = Labels.of(label, group)
        return cls.in_memory(np.ascontiguousarray(images[order]), labels)

    @classmethod
    def in_memory(cls, images: np.ndarray, labels: Labels) -> "ImageBank":
        """Images u8 (n,H,W) or (n,H,W,channels) in the order of their labels."""
        digest = PixelDigest()
        digest.update(images)
        pixels = torch.from_numpy(images)
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        return cls.with_labels(pixels, labels, digest.facts(labels)["digest"])

    @classmethod
    def with_labels(cls, images: Tensor, labels: Labels, digest: str) -> "ImageBank":
        """Images or features in the order of their labels."""
        count = labels.count
        return cls(
            images=images,
            start=np.cumsum(count) - count,
            count=count,
            group=labels.group,
            digest=digest,
            classes=labels.classes,
            domain=labels.domain,
            domains=labels.domains,
            test=labels.test,
        )

    def keep(self, classes: np.ndarray) -> "ImageBank":
        """The bank with these classes only; images are shared."""
        return dataclasses.replace(
            self,
            start=self.start[classes],
            count=self.count[classes],
            group=self.group[classes],
            classes=self.classes[classes],
            test=None if self.test is None else self.test[classes],
        )

    def members(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images of some classes, class after class, and for each of them the place of its class among `classes`."""
        count = self.count[classes]
        place = np.repeat(np.arange(len(classes)), count)
        return np.repeat(self.start[classes] - (np.cumsum(count) - count), count) + np.arange(len(place)), place

    @functools.cached_property
    def sketches(self) -> list[str] | None:
        """By which each class is known again elsewhere, see `sketches_of`; None where the images in their source are not known."""
        hashes = self.hashes
        if hashes is None:
            if self.prepared:
                return None
            hashes = hashes_of(self.images.numpy())
        image, place = self.members(np.arange(len(self.classes)))
        return sketches_of(hashes[image], place, len(self.classes))


def load_bank(config: ImageFamilyConfig) -> ImageBank:
    """The images that a config names, or their features; what has to be decoded or computed first is, once, in this process.

    Raises ConfigError that names the field or the file at fault, BuildStopped or SourceAway where trying later may help.
    """
    recipe = recipe_of(config)
    if recipe is None:
        return _with_splits(config, ImageBank.in_memory(*_arrays(config)))
    build_here(recipe)
    return _with_splits(config, open_bank(recipe))


def recipe_of(config: ImageFamilyConfig) -> Recipe | None:
    """How to make the array that a family reads, or None where its images are in memory and no encoder is asked for."""
    if isinstance(config, SourceConfig) and not _is_npz(config):
        source = open_source(config)  # type: ignore[arg-type]
        work = Encode(config.encoder) if config.encoder else Shrink(config.size, source.grey, source.fit)

        def listed() -> tuple[Part, Labels]:
            listing = source.list()
            return listing.entries, listing.labels

        store = Store.of(source.name, {"source": source.key, "work": work.key}, source.fingerprint)
        return Recipe(store, work, listed, config.unreadable_limit, source.field)
    if config.encoder is None:
        return None
    work = Encode(config.encoder)

    def held() -> tuple[Part, Labels]:
        images, labels = _arrays(config)
        return Pixels(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)), labels

    if isinstance(config, ImagesConfig):
        path = absolute(config.path)
        key = {"npz": path, "group": config.group, "domain": config.domain}
        store = Store.of(PurePosixPath(path).stem, {"source": key, "work": work.key}, fingerprint([existing(path)]))
    else:
        assert isinstance(config, GlyphsConfig)
        from mambacl.tasks.glyphs import fonts_digest

        store = Store.of("glyphs", {"source": {"by_script": config.by_script}, "work": work.key}, fonts_digest())
    return Recipe(store, work, held, 0, "task.path")


def open_bank(recipe: Recipe) -> ImageBank:
    """The bank of a complete array. Raises ConfigError where it was built with more unreadable images than are allowed now."""
    manifest = recipe.store.manifest()
    assert manifest is not None
    check_unreadable(recipe, len(manifest["faults"]), manifest["faults"][-1] if manifest["faults"] else "")
    labels = Labels.load(recipe.store.folder / LABELS)
    bank = ImageBank.with_labels(torch.from_numpy(recipe.store.array()), labels, manifest["digest"])
    return dataclasses.replace(
        bank,
        statistics=statistics_of(manifest),
        prepared=True,
        hashes=read_hashes(recipe.store),
    )


def _is_npz(config: ImageFamilyConfig) -> bool:
    return isinstance(config, ImagesConfig) and config.path.endswith(".npz")


def _arrays(config: ImageFamilyConfig) -> tuple[np.ndarray, Labels]:
    """The images that are in memory anyway, u8 (n, H, W) or (n, H, W, channels), and their labels."""
    if isinstance(config, GlyphsConfig):
        from mambacl.tasks.glyphs import load_glyphs  # matplotlib's fonts are needed here only

        return load_glyphs(config.by_script)
    assert isinstance(config, ImagesConfig)
    path = absolute(config.path)
    existing(path)
    return read_npz(config, path)


def _with_splits(config: ImageFamilyConfig, bank: ImageBank) -> ImageBank:
    """The bank with or without its official test classes, as the config asks."""
    if not isinstance(config, DatasetConfig) or config.splits is None:
        return bank
    if config.splits == "official" and bank.test is None:
        raise ConfigError(f"task.splits: {config.dataset} at {config.root} has no official split; allowed: seed")
    return bank if config.splits == "official" else dataclasses.replace(bank, test=None)
