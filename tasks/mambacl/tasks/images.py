"""The task families made of images: an episode's tasks are classes.

Shapes: B episodes, K tasks, S shots, Q queries a task, R = S + Q images a task.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mambacl.tasks.bank import ImageBank, load_bank
from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family import Family
from mambacl.tasks.features import FeatureStatistics
from mambacl.tasks.images_config import AugmentConfig, DatasetConfig, GlyphsConfig, ImageFamilyConfig, ImagesConfig
from mambacl.tasks.pools import make_pools
from mambacl.tasks.randomness import SPLITS, Split, first, generator
from mambacl.tasks.transforms import affine, turn


class ImageFamily(Family):
    """Episodes of image classes, class after class (Lee et al., 2023): K random classes, S + Q images of each."""

    config: ImageFamilyConfig

    def __init__(self, config: ImageFamilyConfig, bank: ImageBank) -> None:
        super().__init__(config)
        if config.drop_small_classes:
            bank = bank.keep(np.flatnonzero(bank.count >= config.shots + config.queries))
        self.bank = bank
        self.pools = make_pools(bank, config)
        # Digest of what decides an episode besides its size: images, classes of each split, seed.
        digest = hashlib.sha256(f"{bank.digest} {config.seed}".encode())
        for split in SPLITS:
            digest.update(bank.start[self.classes[split]].astype(np.int64).data)
            if config.test_domains:
                digest.update(self.pools[split].image.data)
        self.spec = Spec(
            input="image" if bank.images.dtype == torch.uint8 else "vector",
            shape=tuple(bank.images.shape[1:]),
            output="classification",
            size=config.codes,
            digest=digest.hexdigest(),
        )

    @property
    def classes(self) -> dict[Split, np.ndarray]:
        """The class numbers of each split, those of its pool."""
        return {split: pool.classes for split, pool in self.pools.items()}

    @property
    def feature_statistics(self) -> FeatureStatistics | None:
        """Of a frozen encoder's features over all images; None where learners read images."""
        return self.bank.statistics

    def limits(self, split: Split) -> dict[str, int]:
        pool = self.pools[split]
        augment = self._augment(split)
        turns = 4 if augment and augment.turns else 1
        return {"tasks": min(turns * len(pool.classes), self.config.codes), "images": int(pool.count.min())}

    def small_classes(self, split: Split, images: int) -> list[str]:
        pool = self.pools[split]
        small = np.flatnonzero(pool.count < images)
        return [f"{pool.names[c]} ({pool.count[c]})" for c in small[np.argsort(pool.count[small], kind="stable")]]

    def _augment(self, split: Split) -> AugmentConfig | None:
        return self.config.augment if split == "meta_train" and self.spec.input == "image" else None

    def episodes(self, split: Split, indices: Sequence[int]) -> Episode:
        config = self.check().config
        K, S, Q = config.tasks, config.shots, config.queries
        draws = [self._draw(split, index) for index in indices]
        image_BKR, turns_BK, code_BK = (np.stack(part) for part in list(zip(*draws, strict=True))[:3])
        pixels = self.bank.images[torch.from_numpy(image_BKR.reshape(-1))]
        if self.spec.input == "vector":
            pixels = pixels.float()
        if augment := self._augment(split):
            if augment.turns:
                pixels = turn(pixels, torch.from_numpy(turns_BK).flatten().repeat_interleave(S + Q))
            change = np.concatenate([draw[3] for draw in draws])
            pixels = affine(pixels, torch.from_numpy(change))
        pixels = pixels.unflatten(0, (len(draws), K, S + Q))
        codes = torch.from_numpy(code_BK)
        numbers = torch.arange(K).expand(len(draws), K)

        def per_example(task_BK: Tensor, count: int) -> Tensor:
            return task_BK.repeat_interleave(count, dim=1)

        return Episode(
            support_x=pixels[:, :, :S].flatten(1, 2),
            support_y=per_example(codes, S),
            support_task=per_example(numbers, S),
            query_x=pixels[:, :, S:].flatten(1, 2),
            query_y=per_example(codes, Q),
            query_task=per_example(numbers, Q),
            query_after=torch.full((len(draws), K * Q), K * S - 1),
            index=torch.tensor(list(indices)),
            objective="classification",
        )

    def _draw(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All random choices of one episode: images (K, R), quarter turns (K,), codes (K,), affine changes (K*R, 4)."""
        config, augment = self.config, self._augment(split)
        K, R = config.tasks, config.shots + config.queries
        rng = generator(config.seed, split, index)
        pool = self.pools[split]
        turns = 4 if augment and augment.turns else 1
        chosen = first(rng.random(turns * len(pool.classes)), K)
        code = first(rng.random(config.codes), K)
        chosen_class = chosen % len(pool.classes)
        count = pool.count[chosen_class]
        keys = rng.random((K, count.max()))
        keys[np.arange(count.max()) >= count[:, None]] = np.inf
        image = pool.image[pool.start[chosen_class][:, None] + first(keys, R)]
        strength = [augment.degrees, augment.shift, augment.shift, augment.scale] if augment else [0.0] * 4
        change = rng.uniform(-1, 1, (K * R, 4)) * strength
        return image, chosen // len(pool.classes), code, change.astype(np.float32)


def build_images(config: ImagesConfig | DatasetConfig | GlyphsConfig) -> ImageFamily:
    """A family from the images that a config names."""
    return ImageFamily(config, load_bank(config))
