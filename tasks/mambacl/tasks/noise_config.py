"""Config of noise on what a learner reads."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.config import Config

Site = Literal["pixel", "encoder_out", "token"]
Target = Literal["support", "query", "both"]


class NoiseConfig(Config):
    """Gaussian noise, drawn by the number of the episode, so that learners of one width meet the same."""

    site: Site
    """pixel: the example itself (images are rounded and clipped to 0..255 again); encoder_out: its vector behind the encoder
    (learners without an encoder: its numbers); token: the tokens of a sequence learner, those of labels too."""
    target: Target = "both"
    """Which examples are disturbed."""
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviation of the noise as a multiple of that of each dimension over the clean support examples of the
    episode; for images, of the root mean square of these over all pixels."""
