"""The task families made of images: an episode's tasks are classes.

Shapes: B episodes, N examples of each, G classes drawn, R images drawn of each.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from mambacl.tasks.bank import ImageBank, load_bank
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family import Family
from mambacl.tasks.features import FeatureStatistics
from mambacl.tasks.images_config import (
    AugmentConfig,
    DatasetConfig,
    GlyphsConfig,
    ImageFamilyConfig,
    ImagesConfig,
    VectorAugmentConfig,
)
from mambacl.tasks.pools import Pool, make_pool, make_pools
from mambacl.tasks.preparation import Preparation
from mambacl.tasks.randomness import SPLITS, Split, first, generator
from mambacl.tasks.stream import lay_out
from mambacl.tasks.targets import TARGETS, Drawn
from mambacl.tasks.transforms import affine, background, turn
from mambacl.tasks.vectors import augmented, mixed

FITTED = 100_000
"""Most images that a preparation is fitted on."""


class ImageFamily(Family):
    """Episodes of image classes, class after class (Lee et al., 2023): K random classes, S + Q images of each."""

    config: ImageFamilyConfig

    def __init__(self, config: ImageFamilyConfig, bank: ImageBank) -> None:
        super().__init__(config)
        if config.drop_small_classes:
            bank = bank.keep(np.flatnonzero(bank.count >= config.shot_range[1] + config.queries))
        self.bank = bank
        self.target = TARGETS[config.target]
        self.pools = make_pools(bank, config)
        if config.augment_vectors and config.augment_vectors.mix and len(self.pools["meta_train"].classes) < 2:
            raise ConfigError("task.augment_vectors.mix: needs two classes, meta_train has one")
        self.preparation = self._fitted() if config.prepare else None
        # Digest of what decides an episode besides its size: images, classes of each split, seed, target, stream.
        digest = hashlib.sha256(f"{bank.digest} {config.seed}{self.variant}".encode())
        for split in SPLITS:
            digest.update(bank.start[self.classes[split]].astype(np.int64).data)
            if config.test_domains or config.train_images is not None:
                digest.update(self.pools[split].image.data)
        if config.prepare and self.preparation:
            # What was fitted here hangs on the rest of the digest, but for its last bits.
            digest.update(config.prepare.model_dump_json(exclude={"fitted"}).encode())
            digest.update(self.preparation.digest.encode() if config.prepare.fitted else b"")
        held = tuple(bank.images.shape[1:])
        prepared = tuple(self.preparation.matrix.shape[1:]) if self.preparation else held
        shape, size = self.target.sizes(config, prepared)
        self.spec = Spec(
            input="image" if bank.images.dtype == torch.uint8 else "vector",
            shape=shape,
            output=config.output,
            size=size,
            bounded=self.target.bounded,
            digest=digest.hexdigest(),
        )

    @property
    def variant(self) -> str:
        target = f" {self.config.target} {self.config.offset_mode}" if self.config.target != "class" else ""
        return target + super().variant

    @property
    def classes(self) -> dict[Split, np.ndarray]:
        """The class numbers of each split, those of its pool."""
        return {split: pool.classes for split, pool in self.pools.items()}

    @property
    def domains(self) -> dict[Split, tuple[str, ...]]:
        return {split: pool.domains for split, pool in self.pools.items()}

    @property
    def feature_statistics(self) -> FeatureStatistics | None:
        """Of a frozen encoder's features over all images; None where learners read images."""
        return self.bank.statistics

    def limits(self, split: Split) -> dict[str, int]:
        config, pool = self.config, self.pools[split]
        turns = 4 if self._quarters(split) else 1
        most = turns * len(pool.classes) - (config.drawn - config.tasks)
        if self.spec.output == "classification":
            most = min(most, config.codes - (config.streamed - config.tasks))
        return {"tasks": most, "images": int(pool.count.min()) if len(pool.count) else 0}

    def small_classes(self, split: Split, images: int) -> list[str]:
        pool = self.pools[split]
        small = np.flatnonzero(pool.count < images)
        return [f"{pool.names[c]} ({pool.count[c]})" for c in small[np.argsort(pool.count[small], kind="stable")]]

    def unaugmented(self) -> Self:
        return self._with(config=self.config.model_copy(update={"augment": None, "augment_vectors": None}))

    def in_domains(self, split: Split, domains: Sequence[str]) -> Self:
        least = self.config.shot_range[1] + self.config.queries
        pool = make_pool(self.bank, self.pools[split].classes, list(domains), least)
        return self._with(pools=self.pools | {split: pool})

    def among(self, split: Split, classes: Sequence[int]) -> Self:
        return self._with(pools=self.pools | {split: self.pools[split].among(classes)})

    def _augment(self, split: Split) -> AugmentConfig | None:
        return self.config.augment if split == "meta_train" and self.spec.input == "image" else None

    def _augment_vectors(self, split: Split) -> VectorAugmentConfig | None:
        return self.config.augment_vectors if split == "meta_train" and self.spec.input == "vector" else None

    def _quarters(self, split: Split) -> bool:
        augment = self._augment(split)
        return augment is not None and augment.turns and not self.target.turned

    def episodes(self, split: Split, indices: Sequence[int]) -> Episode:
        config = self.check(split).config
        layout = lay_out(config, split, indices)
        draws = [self._draw(split, index) | self.target.draw(config, split, index) for index in indices]
        drawn = {name: layout.pick(np.stack([draw[name] for draw in draws])) for name in draws[0]}
        x, y = self.target.examples(self._examples(split, drawn), drawn)
        if changes := self._augment_vectors(split):
            x = augmented(x, changes, config.seed, split, indices)
        return self.assemble(layout, x, y, split, indices)

    def asked_classes(self, split: Split, indices: Sequence[int]) -> np.ndarray:
        config = self.config
        drawn = np.stack([self._draw(split, index)["class"] for index in indices])
        asked = lay_out(config, split, indices).pick(drawn)[:, config.examples :: config.queries]
        return asked[:, : config.tasks]

    def _draw(self, split: Split, index: int) -> Drawn:
        """All random choices of one episode for its images."""
        config, augment = self.config, self._augment(split)
        G, R = config.drawn, config.shot_range[1] + config.queries
        rng = generator(config.seed, split, index)
        pool = self.pools[split]
        turns = 4 if self._quarters(split) else 1
        chosen = first(rng.random(turns * len(pool.classes)), G)
        code = first(rng.random(config.codes), config.streamed)
        chosen_class = chosen % len(pool.classes)
        image = self._images(pool, chosen_class, R, rng)
        codes = np.concatenate([code, np.full(config.stream.open_set, -1)])
        drawn = {"image": image.ravel(), "code": codes.repeat(R), "quarters": (chosen // len(pool.classes)).repeat(R)}
        drawn["class"] = pool.classes[chosen_class].repeat(R)
        if (changes := self._augment_vectors(split)) and changes.mix:
            # Classes of which a share is mixed into the drawn ones, and as many images of each.
            other = (chosen_class + rng.integers(1, len(pool.classes), G)) % len(pool.classes)
            drawn["other"] = self._images(pool, other, R, rng).ravel()
            drawn["share"] = rng.uniform(0, changes.mix, G).repeat(R)
        if augment:
            strength = [augment.degrees, augment.shift, augment.shift, augment.scale]
            drawn["change"] = rng.uniform(-1, 1, (G * R, 4)) * strength
        return drawn

    def _images(self, pool: Pool, classes: np.ndarray, count: int, rng: Generator) -> np.ndarray:
        """So many images of each of the classes, drawn without replacement."""
        images = pool.count[classes]
        keys = rng.random((len(classes), images.max()))
        keys[np.arange(images.max()) >= images[:, None]] = np.inf
        return pool.image[pool.start[classes][:, None] + first(keys, count)]

    def _examples(self, split: Split, drawn: Drawn) -> Tensor:
        """The images (B, N, channels, height, width), turned and changed as they were drawn; or their features (B, N, F)."""
        if self.spec.input == "image":
            return self._pixels(split, drawn)
        x = self._features(drawn["image"])
        if "other" in drawn:
            x = mixed(x, self._features(drawn["other"]), torch.from_numpy(drawn["share"]))
        return x

    def _features(self, image: np.ndarray) -> Tensor:
        x = self.bank.images.index_select(0, torch.from_numpy(image.ravel())).float().unflatten(0, image.shape)
        return self.preparation(x) if self.preparation else x

    def _fitted(self) -> Preparation:
        """The preparation that the config names, or that of meta-train's features. Raises ConfigError where they do not fit."""
        prepare = self.config.prepare
        assert prepare is not None
        if prepare.fitted:
            found, width = Preparation.load(Path(prepare.fitted)), self.bank.images.shape[1]
            if len(found.mean) != width:
                raise ConfigError(f"task.prepare.fitted: is for {len(found.mean)} numbers, features have {width}")
            return found
        image = self.pools["meta_train"].image
        return Preparation.fit(self.bank.images[torch.from_numpy(image[:: -(-len(image) // FITTED)])], prepare)

    def _pixels(self, split: Split, drawn: Drawn) -> Tensor:
        pixels = self.bank.images.index_select(0, torch.from_numpy(drawn["image"].ravel()))
        if self._quarters(split):
            pixels = turn(pixels, torch.from_numpy(drawn["quarters"].ravel()))
        change = drawn.get("change")
        if self.target.turned:
            change = np.zeros((*drawn["image"].shape, 4)) if change is None else change
            change[..., 0] = drawn["degrees"]
        if change is not None:
            # A turned image shows more of what lies beyond its border than augmentation does.
            fill = background(pixels) if self.target.turned else None
            pixels = affine(pixels, torch.from_numpy(change.reshape(-1, 4).astype(np.float32)), fill)
        return pixels.unflatten(0, drawn["image"].shape)


def build_images(config: ImagesConfig | DatasetConfig | GlyphsConfig) -> ImageFamily:
    """A family from the images that a config names."""
    return ImageFamily(config, load_bank(config))
