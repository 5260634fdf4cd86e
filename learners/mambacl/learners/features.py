"""What an example is to learners that are no sequence models: one vector, and a target for it.

Shapes: B episodes, T examples, F features, V label codes or values.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.base_config import EncodedConfig, RawConfig
from mambacl.learners.encoders.encoders import as_float, build_encoder
from mambacl.learners.learner import Learner
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Spec


class FeatureLearner(Learner):
    """A learner on vectors: the raw numbers of an example, or the features of an encoder trained with it."""

    def __init__(self, config: RawConfig | EncodedConfig, spec: Spec, outputs: tuple[str, ...] = ()) -> None:
        """outputs: the kinds that the learner is made for; by default all."""
        if outputs and spec.output not in outputs:
            raise ConfigError(f"learner.name: {config.name!r} needs {' or '.join(outputs)}, the task is {spec.output}")
        super().__init__(spec)
        self.config = config
        self.encoder: nn.Module | None = None
        self.size = int(torch.Size(spec.shape).numel())
        if isinstance(config, EncodedConfig):
            self.encoder, self.size = build_encoder(config.encoder, spec, config.width), config.width
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()), persistent=False)  # carries device and dtype

    def features(self, x: Tensor) -> Tensor:
        """Examples (B, T, *shape) to vectors (B, T, F)."""
        if self.encoder is not None:
            return self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        flat = as_float(x, self.like.dtype).flatten(2)
        return F.normalize(flat, dim=-1) if isinstance(self.config, RawConfig) and self.config.unit else flat

    def targets(self, y: Tensor) -> Tensor:
        """Label codes (B, T) as one-hot rows, values as they are: (B, T, V)."""
        one_hot = self.spec.output == "classification"
        return F.one_hot(y, self.spec.size).to(self.like.dtype) if one_hot else y.to(self.like.dtype)

    def seen_only(self, prediction: Tensor, seen_BV: Tensor) -> Tensor:
        """-inf for label codes that the stream has not shown; values as they are."""
        if self.spec.output != "classification":
            return prediction
        return prediction.masked_fill(~seen_BV.unsqueeze(1), -torch.inf)
