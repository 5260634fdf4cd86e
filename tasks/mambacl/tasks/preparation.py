"""Preparation of features: an affine map that is fitted on the images of meta-train alone.

Shapes: n images, F features, P prepared ones.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import PrepareConfig

LEAST = 1e-6
"""Smallest variance that is divided by, as a share of the largest."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """y = W (x - mean), or with `unit` y = W (x' - middle) for x' the vector x - mean at length sqrt(F)."""

    mean: Tensor
    """(F,) float32."""
    middle: Tensor
    """(F,) float32."""
    matrix: Tensor
    """W transposed, (F, P) float32."""
    unit: bool

    @classmethod
    def fit(cls, x: Tensor, config: PrepareConfig) -> Self:
        """Of vectors (n, F). Raises ConfigError where there are fewer of them than dimensions asked for."""
        n, F = x.shape
        if config.dimensions is not None and config.dimensions > min(n, F):
            raise ConfigError(
                f"task.prepare.dimensions: must be at most {min(n, F)}, of {n} vectors of {F} numbers; got {config.dimensions}"
            )
        x = x.double()
        mean = x.mean(0) if config.center else x.new_zeros(F)
        x = _at_length(x - mean) if config.unit else x - mean
        middle = x.mean(0) if config.center else mean.new_zeros(F)
        return cls(mean.float(), middle.float(), _matrix(x - middle, config).float(), config.unit)

    def __call__(self, x: Tensor) -> Tensor:
        """Vectors (..., F) as (..., P), float32."""
        x = x.float() - self.mean
        return ((_at_length(x) if self.unit else x) - self.middle) @ self.matrix

    @property
    def digest(self) -> str:
        """SHA-256 of what it does."""
        found = hashlib.sha256(str(self.unit).encode())
        for part in (self.mean, self.middle, self.matrix):
            found.update(part.contiguous().numpy().data)
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """As a safetensors file."""
        from safetensors.torch import save_file

        parts = {name: getattr(self, name).contiguous() for name in ("mean", "middle", "matrix")}
        save_file(parts | {"unit": torch.tensor(self.unit)}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ConfigError where the file is none of these."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            parts = load_file(path)
            return cls(parts["mean"], parts["middle"], parts["matrix"], bool(parts["unit"]))
        except (OSError, SafetensorError, KeyError) as error:
            raise ConfigError(f"task.prepare.fitted: {path} is no preparation: {error}") from None


def _at_length(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1) * x.shape[-1] ** 0.5


def _matrix(x: Tensor, config: PrepareConfig) -> Tensor:
    """W transposed (F, P), for vectors (n, F) less their mean."""
    F = x.shape[1]
    if config.axes == "same":
        return torch.eye(F, dtype=x.dtype)
    second = x.T @ x / len(x)
    if config.axes == "standard":
        return second.diagonal().clamp(min=LEAST * float(second.diagonal().max())).rsqrt().diag()
    variance, axes = torch.linalg.eigh(second)
    variance, axes = variance.flip(0), axes.flip(1)
    # An axis may point either way: its largest part is made positive, whatever library has found it.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    scale = variance.clamp(min=LEAST * float(variance[0])).rsqrt()
    kept = axes[:, : config.dimensions or F]
    if config.axes == "pca":
        return kept
    whitened = kept * scale[: kept.shape[1]]
    return whitened if config.axes == "whitened" else whitened @ kept.T
