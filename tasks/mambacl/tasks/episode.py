"""What a learner reads: a batch of continual-learning episodes, and the facts needed to build a learner for them.

Shapes: B episodes, T support examples, M queries, K tasks, V label codes.
"""

import dataclasses
from typing import Literal, Self

import torch
from torch import Tensor

from mambacl.tasks.config import Config
from mambacl.tasks.family_config import Objective
from mambacl.tasks.noise import Noise


class Spec(Config):
    """What a learner must know of a task family: input, output, and the digest of the data behind it."""

    input: Literal["image", "vector"]
    """Kind of one example: an image (channels, height, width) of bytes, or a vector of float32."""
    shape: tuple[int, ...]
    """Shape of one example."""
    output: Objective
    """What is answered."""
    size: int
    """Label codes V for classification, dimensions of a target otherwise."""
    bounded: bool = False
    """Targets lie in -1..1, and a trained learner's predictions pass through tanh (Lee et al., 2023)."""
    digest: str
    """Identifies the data and the class splits: equal digests mean equal episodes."""

    def unlike(self, other: Self) -> str | None:
        """The field for which a learner of the one cannot read episodes of the other; None where it can."""
        for field in ("input", "shape", "output", "size"):
            if getattr(self, field) != getattr(other, field):
                return field
        return None


@dataclasses.dataclass(frozen=True)
class Episode:
    """A batch of B episodes: each a stream of T support examples, and M queries asked of it.

    Images are uint8 in 0..255, vectors float32. Targets are int64 label codes in 0..V-1 (classification)
    or float32 vectors (regression, angle).
    """

    support_x: Tensor
    """(B, T, *shape), in stream order."""
    support_y: Tensor
    """(B, T) codes or (B, T, size) values."""
    support_task: Tensor
    """(B, T) int64 in 0..K-1: the task of each example, by order of first appearance."""
    query_x: Tensor
    """(B, M, *shape)."""
    query_y: Tensor
    """(B, M) codes or (B, M, size) values; code -1 where no answer is right."""
    query_task: Tensor
    """(B, M) int64 in 0..K-1; -1 for a task that the stream does not have. Such queries come last, as many in each episode."""
    query_after: Tensor
    """(B, M) int64 in 0..T-1: the support example after which the query is asked; by default the last."""
    index: Tensor
    """(B,) int64: the number of each episode, which with family, split and seed determines it."""
    objective: Objective
    noise: Noise | None = None
    """Noise that a learner adds when it reads the episode, at the encoder's output or the tokens; that on examples is in them
    already. Examples taken out of the episode, one by one, are without the former."""

    def to(self, device: torch.device | str) -> Self:
        """The same episodes on another device."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)

    def __getitem__(self, batch: slice) -> Self:
        """A part of the batch."""
        parts = {
            field.name: value[batch]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **parts)

    def with_ordered_codes(self, which: Tensor) -> Self:
        """The same episodes, but that in those for which `which` (B,) is true the k-th task of the stream has code k."""
        if self.objective != "classification":
            return self
        # The task of a code is that of most of its examples: some may bear a wrong label.
        tasks = int(self.support_task.max()) + 1
        pairs = torch.zeros(len(which), (int(self.support_y.max()) + 1) * tasks, device=which.device)
        pairs.scatter_add_(
            1, self.support_y * tasks + self.support_task, torch.ones_like(self.support_y, dtype=pairs.dtype)
        )
        order = pairs.unflatten(1, (-1, tasks)).argmax(-1)
        ordered = {
            name: torch.where(which.unsqueeze(1) & (codes >= 0), order.gather(1, codes.clamp(min=0)), codes)
            for name, codes in (("support_y", self.support_y), ("query_y", self.query_y))
        }
        return dataclasses.replace(self, **ordered)

    @property
    def tasks(self) -> int:
        """K, the number of tasks in each stream."""
        return int(self.support_task.max()) + 1

    @property
    def answerable(self) -> int:
        """Queries of each episode that have a right answer: the first ones."""
        return int((self.query_task[0] >= 0).sum())
