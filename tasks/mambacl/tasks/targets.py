"""What is asked of an image: its class, the angle by which it was turned, or its lower half.

Rotation and completion as in Lee et al. (2023), "Recasting Continual Learning as Sequence Modeling".
Shapes: B episodes, N examples of each, G tasks drawn, R examples drawn of each.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mambacl.tasks.randomness import Split, generator
from mambacl.tasks.targets_config import TargetConfig

Drawn = dict[str, np.ndarray]
"""All random choices of an episode, each an array of (G R, ...): image, code, and what is changed of the image."""


class ClassTarget:
    """The label code of the image's class."""

    bounded: ClassVar[bool] = False
    turned: ClassVar[bool] = False
    """Whether the target itself turns the images, so that augmentation does not."""

    def sizes(self, config: TargetConfig, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Shape of an input and size of a target, for images (channels, height, width)."""
        return shape, config.codes

    def draw(self, config: TargetConfig, split: Split, index: int) -> Drawn:
        """Random choices beside those of the images."""
        return {}

    def examples(self, pixels: Tensor, drawn: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, N, ...) from images (B, N, channels, height, width)."""
        return pixels, torch.from_numpy(drawn["code"])


class RotationTarget(ClassTarget):
    """(cos, sin) of the angle by which the image was turned, anticlockwise.

    In the original every task has an offset that is added to image and label alike and so changes nothing; with
    offset_mode `label` it is added to the label alone: a function of its own for each task.
    """

    turned = True

    def sizes(self, config: TargetConfig, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        return shape, 2

    def draw(self, config: TargetConfig, split: Split, index: int) -> Drawn:
        G, R = config.drawn, config.shot_range[1] + config.queries
        # A row a task, so that a longer episode begins with the shorter one's angles.
        angle = generator(config.seed, f"{split} angles", index).uniform(0, 360, (G, R + 1))
        degrees, offset = angle[:, :R], angle[:, R:]
        label = degrees + offset if config.offset_mode == "label" else degrees
        return {"degrees": degrees.ravel(), "radians": np.deg2rad(label).ravel()}

    def examples(self, pixels: Tensor, drawn: dict[str, Any]) -> tuple[Tensor, Tensor]:
        radians = torch.from_numpy(drawn["radians"])
        return pixels, torch.stack([radians.cos(), radians.sin()], dim=-1).float()


class CompletionTarget(ClassTarget):
    """The lower half of the image, its values in -1..1, given the upper half."""

    bounded = True

    def sizes(self, config: TargetConfig, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        channels, height, width = shape
        return (channels, height // 2, width), channels * (height - height // 2) * width

    def examples(self, pixels: Tensor, drawn: dict[str, Any]) -> tuple[Tensor, Tensor]:
        upper = pixels.shape[-2] // 2
        return pixels[..., :upper, :].contiguous(), (pixels[..., upper:, :].float() / 127.5 - 1).flatten(2)


TARGETS = {"class": ClassTarget(), "rotation": RotationTarget(), "completion": CompletionTarget()}
