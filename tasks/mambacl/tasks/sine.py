"""Sine regression, as in Lee et al. (2023), "Recasting Continual Learning as Sequence Modeling".

A task is a frequency f and two phases; an example is an amplitude a and noise:
    x(t) = a sin(2 pi f t + phi_x) + N(0, 0.1^2)        y(t) = a sin(2 pi f t + phi_y)
on 50 points of 0..10. Shapes: K tasks, R examples drawn of each.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family import UNLIMITED, Family
from mambacl.tasks.randomness import Split, generator
from mambacl.tasks.sine_config import SineConfig
from mambacl.tasks.stream import lay_out

POINTS = 50
NOISE = 0.1


class SineFamily(Family):
    """Episodes of sine tasks; the splits are disjoint streams of one generator."""

    config: SineConfig

    def __init__(self, config: SineConfig) -> None:
        super().__init__(config)
        self.spec = Spec(
            input="vector",
            shape=(POINTS,),
            output=config.output,
            size=POINTS,
            digest=f"sine-1-{config.seed}{self.variant}",
        )

    def limits(self, split: Split) -> dict[str, int]:
        return {"tasks": UNLIMITED, "images": UNLIMITED}

    def episodes(self, split: Split, indices: Sequence[int]) -> Episode:
        layout = lay_out(self.config, split, indices)
        draws = [self._draw(split, index) for index in indices]
        x, y = (torch.from_numpy(layout.pick(np.stack(part))).float() for part in zip(*draws, strict=True))
        return self.assemble(layout, x, y, split, indices)

    def _draw(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """x and y (K * R, POINTS) of one episode."""
        K, R = self.config.drawn, self.config.shot_range[1] + self.config.queries
        rng = generator(self.config.seed, split, index)
        frequency = rng.uniform(0.1, 1.1, (K, 1, 1))
        phase_x, phase_y = rng.uniform(0, 2 * np.pi, (2, K, 1, 1))
        amplitude = rng.uniform(0.5, 1.5, (K, R, 1))
        angle = 2 * np.pi * frequency * np.linspace(0, 10, POINTS)
        noise = rng.normal(0, NOISE, (K, R, POINTS))
        x, y = amplitude * np.sin(angle + phase_x) + noise, amplitude * np.sin(angle + phase_y)
        return x.reshape(K * R, POINTS), y.reshape(K * R, POINTS)
