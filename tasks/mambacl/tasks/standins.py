"""Stand-ins for public data sets that are not there: families with as many classes and images, all of them blank, by which a
study is planned before anything is fetched."""

import functools

import numpy as np
import torch
from torch import Tensor

from mambacl.tasks.bank import ImageBank
from mambacl.tasks.config import ConfigError
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.images_config import DatasetConfig
from mambacl.tasks.sources.datasets import SETS
from mambacl.tasks.sources.named.counts import COUNTS
from mambacl.tasks.widths import width_of


@functools.lru_cache(maxsize=8)
def standin(config: DatasetConfig) -> ImageFamily:
    """The family of a data set that need not be there: its classes, splits, groups and domains, and blank images or features.

    Raises ConfigError where the data set has too few classes or images for an episode, where it has no official split that is
    asked for, or where the width of the encoder's features is not known.
    """
    return ImageFamily(config, _bank(config)).check()


def _bank(config: DatasetConfig) -> ImageBank:
    counts = COUNTS[config.dataset]
    if config.splits == "official" and counts.test is None:
        raise ConfigError(f"task.splits: {config.dataset} has no official split; allowed: seed")
    C, D = len(counts.images), len(counts.domains)
    count = counts.images.reshape(C, -1).sum(1)
    blank = _blank(config)
    return ImageBank(
        images=blank.expand(int(count.sum()), *blank.shape),
        start=np.cumsum(count) - count,
        count=count,
        group=np.arange(C) if counts.group is None else counts.group,
        digest=f"stand-in for {config.dataset}",
        classes=np.array([f"{config.dataset} {c}" for c in range(C)]),
        domain=np.repeat(np.tile(np.arange(D), C), counts.images.ravel()) if D else None,
        domains=np.array(counts.domains, str),
        test=None if config.splits == "seed" else counts.test,
        prepared=True,
    )


def _blank(config: DatasetConfig) -> Tensor:
    """One image, or the features of one."""
    if config.encoder:
        return torch.zeros(width_of(config.encoder), dtype=getattr(torch, config.encoder.dtype))
    channels = 1 if config.grey or SETS[config.dataset].grey else 3
    return torch.zeros(channels, config.size, config.size, dtype=torch.uint8)
