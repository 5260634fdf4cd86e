"""Config of the Mamba-3 learner."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.matrix_config import MatrixConfig


class Mamba3Config(MatrixConfig):
    """Mamba-3: a state that turns as it decays, written by the trapezoidal rule, with several inputs and outputs a head."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.mamba3:Mamba3Mixer"
    source: ClassVar[str] = "Lahoti et al., 2026"
    name: Literal["mamba3"] = "mamba3"
    """Which learner."""
    expand: Annotated[int, Field(ge=1)] = 2
    """Inner width E as a multiple of D."""
    rank: Annotated[int, Field(ge=1, le=16)] = 1
    """R, keys and queries of a head's token: 1 is the model with a single input and output (SISO), more make it MIMO."""
    turned: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of a key's numbers that turn, two at a time, by angles that tokens choose."""
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay; 1 is that of language models."""
    delta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.001, 0.1)
    """Smallest and largest initial step Delta: how strongly a token is written, and with `decay` how fast it fades."""
    short_conv: Annotated[int, Field(ge=0, le=16)] = 0
    """Width of the causal convolution before the recurrence; 0, as in Mamba-3, leaves it out: the rule of the write joins a token
    to the one before it."""
    feed_forward: Annotated[float, Field(ge=0)] = 0.0
    """Width of a feed-forward part after the mixer, as a multiple of D; 0 for none."""
    kernel: Literal["auto", "reference", "chunked", "fla"] = "auto"
    """Implementation of the recurrence; auto takes the fastest that runs here."""
