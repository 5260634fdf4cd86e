"""Configs of the encoders, which turn one example into a vector."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.config import Config


class CnnConfig(Config):
    """3 x 3 convolutions with group normalisation: that of the ancestors, over a batch, would let examples see each other."""

    name: Literal["cnn"] = "cnn"
    """Which encoder."""
    channels: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = (16, 32, 64, 128)
    """Channels after each convolution; each halves the image's side."""
    first_stride: Literal[1, 2] = 2
    """1 for a first convolution that keeps the image's side (as the ancestors' does)."""


class MlpConfig(Config):
    """Linear layers with layer normalisation, over the flattened example."""

    name: Literal["mlp"] = "mlp"
    """Which encoder."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Number of linear layers, each as wide as a token."""


EncoderConfig = Annotated[CnnConfig | MlpConfig, Field(discriminator="name")]
