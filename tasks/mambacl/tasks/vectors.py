"""Changes of an episode's vectors by which features cannot be learnt by heart.

Shapes: B episodes, N vectors of each, D dimensions = a x b.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from mambacl.tasks.images_config import VectorAugmentConfig
from mambacl.tasks.randomness import Split, generator

ROUNDS = 2
"""Of mixing the dimensions; after two every new one holds a part of each old one."""


def mixed(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Vectors (B, N, D), each with its share (B, N) of another, at the length that two independent ones have together."""
    share = share.unsqueeze(-1).to(x.dtype)
    return ((1 - share) * x + share * other) / ((1 - share).square() + share.square()).sqrt()


def augmented(x: Tensor, config: VectorAugmentConfig, seed: int, split: Split, indices: Sequence[int]) -> Tensor:
    """The vectors (B, N, D) of episodes with these numbers: noise on each, then dimensions left out, then another basis."""
    return torch.stack(
        [_one(own, config, generator(seed, f"{split} vectors", i)) for own, i in zip(x, indices, strict=True)]
    )


def _one(x: Tensor, config: VectorAugmentConfig, rng: Generator) -> Tensor:
    if config.noise:
        drawn = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
        x = x + config.noise * x.std(0, correction=0) * drawn
    if config.drop:
        x = x * torch.from_numpy(rng.random(x.shape[1]) >= config.drop)
    return turned(x, rng) if config.bases else x


def turned(x: Tensor, rng: Generator) -> Tensor:
    """Vectors (N, D) in a random orthogonal basis: in each round the dimensions in another order and with random signs, as a matrix
    (a, b) that is turned from both sides. Of a D of 512 that takes a tenth of the time of a full random rotation."""
    D = x.shape[1]
    a = max(divisor for divisor in range(1, math.isqrt(D) + 1) if D % divisor == 0)
    for _ in range(ROUNDS):
        order, sign = rng.permutation(D), rng.integers(0, 2, D) * 2 - 1
        x = x[:, torch.from_numpy(order)] * torch.from_numpy(sign)
        left, right = (torch.from_numpy(_rotation(size, rng)).to(x.dtype) for size in (a, D // a))
        x = (left @ x.unflatten(1, (a, -1)) @ right).flatten(1)
    return x


def _rotation(size: int, rng: Generator) -> np.ndarray:
    """A random orthogonal matrix, evenly distributed (Mezzadri, 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))
