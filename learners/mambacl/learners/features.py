"""What an example is to learners that are no sequence models: one vector, and a target for it.

Shapes: B episodes, T examples, F features, V label codes or values.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.base_config import EncodedConfig, RawConfig
from mambacl.learners.encoders.encoders import as_float, build_encoder
from mambacl.learners.learner import Learner, Output, State
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec


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

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: float64 on raw numbers, which come at any scale; else what its encoder computes in."""
        return torch.float64 if isinstance(self.config, RawConfig) else self.like.dtype

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        x, y = self.chunk(x, y)
        return self.absorb(state, self.features(x), y)

    def predict(self, state: State, x: Tensor) -> Output:
        return Output(self.answer(state, self.features(x)))

    @abstractmethod
    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        """The state after a chunk of the stream, given its features (B, T, F) and its codes or values."""

    @abstractmethod
    def answer(self, state: State, x: Tensor) -> Tensor:
        """Predictions for queries, given their features (B, M, F), in the dtype of the learner."""

    def inputs(self, episode: Episode) -> tuple[Tensor, Tensor]:
        return noisy(self.features(episode.support_x), self.features(episode.query_x), episode, self.config.name)

    def features(self, x: Tensor) -> Tensor:
        """Examples (B, T, *shape) to vectors (B, T, F)."""
        if self.encoder is not None:
            return self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        flat = as_float(x, self.dtype).flatten(2)
        return F.normalize(flat, dim=-1) if isinstance(self.config, RawConfig) and self.config.unit else flat

    def targets(self, y: Tensor) -> Tensor:
        """Label codes (B, T) as one-hot rows, values as they are: (B, T, V)."""
        one_hot = self.spec.output == "classification"
        return F.one_hot(y, self.spec.size).to(self.dtype) if one_hot else y.to(self.dtype)

    def seen_only(self, prediction: Tensor, seen_BV: Tensor) -> Tensor:
        """-inf for label codes that the stream has not shown; values as they are. In the dtype of the learner."""
        prediction = prediction.to(self.like.dtype)
        if self.spec.output != "classification":
            return prediction
        return prediction.masked_fill(~seen_BV.unsqueeze(1), -torch.inf)


def or_one(scale: Tensor) -> Tensor:
    """What to divide by: a scale, or 1 where it is 0 because nothing has come yet that has one."""
    return torch.where(scale > 0, scale, 1.0)


def noisy(support: Tensor, query: Tensor, episode: Episode, who: str) -> tuple[Tensor, Tensor]:
    """Features (B, T, F) and (B, M, F) with the episode's noise at the encoder's output. Raises ConfigError, in the name of
    `who`, for noise on tokens."""
    if (noise := episode.noise) is None:
        return support, query
    if noise.site == "token":
        raise ConfigError(f"task.noise.site: {who} has no 'token'; allowed: pixel, encoder_out")
    return noise.add(support, query, episode.index)
