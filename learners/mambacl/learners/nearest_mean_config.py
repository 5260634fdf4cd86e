"""Config of the nearest-class-mean reference."""

from typing import Literal

from mambacl.tasks.config import Config


class NearestMeanConfig(Config):
    """Nearest class mean on the raw input: nothing is trained. A learner that does not beat it has learnt nothing."""

    name: Literal["nearest_mean"] = "nearest_mean"
    """Which learner."""
