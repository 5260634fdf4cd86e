"""What each split may draw from: its classes, and of these the images of its domains."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np

from mambacl.tasks.bank import ImageBank
from mambacl.tasks.config import ConfigError, nearest
from mambacl.tasks.images_config import ImageFamilyConfig
from mambacl.tasks.randomness import SPLITS, Split, generator
from mambacl.tasks.splits import SHARES, check_disjoint, halve, split_classes


@dataclasses.dataclass(frozen=True)
class Pool:
    """Images of the C classes of a split. Those of the c-th are image[start[c] : start[c] + count[c]]."""

    classes: np.ndarray
    """(C,) int64 class numbers of the bank, rising."""
    image: np.ndarray
    """(n,) int64 image numbers of the bank, class after class."""
    start: np.ndarray
    """(C,) int64."""
    count: np.ndarray
    """(C,) int64."""
    names: tuple[str, ...]
    """(C,) names of the classes."""
    domains: tuple[str, ...]
    """Names of the domains; none where the source has none."""

    @property
    def digest(self) -> str:
        """SHA-256 of the names of classes and domains."""
        return hashlib.sha256("\n".join([*self.names, "", *self.domains]).encode()).hexdigest()

    @property
    def place(self) -> np.ndarray:
        """(n,) int64 in 0..C-1: the class of each image."""
        return np.repeat(np.arange(len(self.count)), self.count)

    def among(self, classes: Sequence[int] | np.ndarray) -> Self:
        """The pool with those of its classes that have these numbers."""
        kept = np.isin(self.classes, classes)
        count = self.count[kept]
        return dataclasses.replace(
            self,
            classes=self.classes[kept],
            image=self.image[kept[self.place]],
            start=np.cumsum(count) - count,
            count=count,
            names=tuple(name for name, keep in zip(self.names, kept, strict=True) if keep),
        )


def make_pools(bank: ImageBank, config: ImageFamilyConfig) -> dict[Split, Pool]:
    """The pool of each split, by the config's seed and domains and the bank's official classes.

    Raises ConfigError where a split is left without images, where classes that should be apart are not, or where there are
    fewer than train_classes.
    """
    domains = split_domains(bank, config)
    if config.class_disjoint:
        classes = split_classes(bank.group, config.seed, bank.test)
        check_disjoint(bank.group, classes)
    else:
        everything = np.arange(len(bank.count))
        classes = dict.fromkeys(SPLITS, everything) | halve(everything, bank.group, config.seed)
    least = config.shot_range[1] + config.queries if config.drop_small_classes else 1
    pools: dict[Split, Pool] = {split: make_pool(bank, classes[split], domains[split], least) for split in SPLITS}
    for split, pool in pools.items():
        if not len(pool.classes):
            where = f" in {', '.join(pool.domains)}" if config.test_domains else ""
            raise ConfigError(f"task: {split} has no class with at least {least} images{where}")
    if config.train_classes is not None:
        kept = _drawn_classes(pools["meta_train"].classes, config.train_classes, config.seed)
        pools["meta_train"] = pools["meta_train"].among(kept)
    if config.train_images is not None:
        pools["meta_train"] = _with_drawn_images(pools["meta_train"], config.train_images, config.seed)
    return pools


def split_domains(bank: ImageBank, config: ImageFamilyConfig) -> dict[Split, list[str]]:
    """The domains of each split: meta-test has its own, and no other split sees them.

    Meta-val shares those of meta-train where it has classes of its own; otherwise it needs images of its own, and gets
    val_domains, or as many drawn by seed as its share of the classes would be.
    """
    known: list[str] = bank.domains.tolist()
    if not config.test_domains:
        return dict.fromkeys(SPLITS, known)
    if not known:
        raise ConfigError("task.test_domains: the images have no domains; task.domain names a column of them")
    for field, names in (("test_domains", config.test_domains), ("val_domains", config.val_domains)):
        for name in names:
            if name not in known:
                raise ConfigError(f"task.{field}: unknown {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    val, rest = list(config.val_domains), [name for name in known if name not in config.test_domains]
    if not val and not config.class_disjoint and len(rest) > 1:
        share = SHARES["meta_val"] / (SHARES["meta_train"] + SHARES["meta_val"])
        drawn = generator(config.seed, "domain splits").permutation(len(rest))
        val = [rest[i] for i in sorted(drawn[: max(1, round(share * len(rest)))].tolist())]
    train = [name for name in rest if name not in val]
    if not train or not (val or config.class_disjoint):
        raise ConfigError(f"task.test_domains: of {', '.join(known)} too few are left for meta_train and meta_val")
    chosen_on = val or train
    return {
        "meta_train": train,
        "meta_val": chosen_on,
        "meta_confirm": chosen_on,
        "meta_test": list(config.test_domains),
    }


def _drawn_classes(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many of the classes, rising. A smaller count draws from among those of a larger one."""
    if count > len(classes):
        raise ConfigError(f"task.train_classes: must be at most the {len(classes)} classes of meta_train, got {count}")
    return np.sort(generator(seed, "train classes").permutation(classes)[:count])


def _with_drawn_images(pool: Pool, most: int, seed: int) -> Pool:
    """The pool with at most so many images of each class. A smaller number draws from among those of a larger one."""
    # A key belongs to an image, not to its place in the pool: a class keeps its images whatever other classes there are.
    key = generator(seed, "train images").random(pool.image.max() + 1)[pool.image]
    rank = np.arange(len(pool.image)) - pool.start[pool.place]
    kept = np.sort(np.lexsort((key, pool.place))[rank < most])
    count = np.minimum(pool.count, most)
    return dataclasses.replace(pool, image=pool.image[kept], start=np.cumsum(count) - count, count=count)


def make_pool(bank: ImageBank, classes: np.ndarray, domains: list[str], least: int) -> Pool:
    """The images of these classes in these domains; classes with fewer than `least` are left out."""
    count = bank.count[classes]
    image, place = bank.members(classes)
    if bank.domain is not None and len(domains) < len(bank.domains):
        seen = np.isin(bank.domains, domains)[bank.domain[image]]
        image, place = image[seen], place[seen]
        count = np.bincount(place, minlength=len(classes))
    large = count >= least
    image, classes, count = image[large[place]], classes[large], count[large]
    return Pool(classes, image, np.cumsum(count) - count, count, tuple(bank.classes[classes].tolist()), tuple(domains))
