"""Noise on examples, or on what a learner makes of them.

Shapes: B episodes, T support vectors, M query vectors, D dimensions.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from mambacl.tasks.noise_config import NoiseConfig, Site
from mambacl.tasks.randomness import Split, generator


@dataclasses.dataclass(frozen=True)
class Noise:
    """The noise of a split's episodes."""

    config: NoiseConfig
    seed: int
    split: Split

    @property
    def site(self) -> Site:
        """Where it is added."""
        return self.config.site

    def add(self, support: Tensor, queries: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, T, D) and (B, M, D) of the episodes with these numbers, with noise on those that it is meant for."""
        spread_B1D = support.detach().std(dim=1, correction=0, keepdim=True)
        return self._add(support, queries, spread_B1D, index)

    def add_to_images(self, support: Tensor, queries: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The same for images uint8 (B, T, channels, height, width): alike on all pixels."""
        flat_BTD = support.flatten(2).float()
        spread_B11 = flat_BTD.var(dim=1, correction=0).mean(dim=1).sqrt()[:, None, None]
        noisy = self._add(flat_BTD, queries.flatten(2).float(), spread_B11, index)
        return tuple(
            part.round().clamp(0, 255).to(torch.uint8).view_as(clean)
            for part, clean in zip(noisy, (support, queries), strict=True)
        )  # type: ignore[return-value]

    def _add(self, support: Tensor, queries: Tensor, spread: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        T, (M, D) = support.shape[1], queries.shape[1:]
        drawn = np.stack(
            [
                generator(self.seed, f"{self.split} noise", number).standard_normal((T + M, D), np.float32)
                for number in index.tolist()
            ]
        )
        noise = torch.from_numpy(drawn).to(support) * (self.config.strength * spread)
        target = self.config.target
        return (
            support if target == "query" else support + noise[:, :T],
            queries if target == "support" else queries + noise[:, T:],
        )
