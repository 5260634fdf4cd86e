"""Config of the Mamba-1 learner."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.mixers.convolved_config import ConvolvedConfig


class MambaConfig(ConvolvedConfig):
    """Mamba-1: a selective state-space model with a state of fixed size."""

    similar: ClassVar[bool] = True
    implementation: ClassVar[str] = "mambacl.learners.mixers.mamba:MambaMixer"
    source: ClassVar[str] = "Gu and Dao, 2023"
    name: Literal["mamba"] = "mamba"
    """Which learner."""
    state_size: Annotated[int, Field(ge=1, le=1024)] = 32
    """N, numbers a channel keeps."""
    expand: Annotated[int, Field(ge=1)] = 2
    """Inner width E as a multiple of D."""
    decay: Annotated[float, Field(gt=0)] = 0.01
    """Scale of the initial decay rates, A = -decay * (1..N). At 1, as for language, most of a fresh state has faded before
    a stream of a hundred tokens ends: queries cannot read what was written, and meta-training stays on its plateau."""
    delta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.001, 0.1)
    """Smallest and largest initial step Delta: how strongly a token is written, and with `decay` how fast it fades."""
    decays: bool = True
    """Let what is held fade; without, A = 0 and the state is a sum over the stream."""
    selective_steps: bool = True
    """Let a token choose its step Delta; without, each channel learns one for all tokens."""
    gate: bool = True
    """Multiply the outputs by the SiLU of a second projection of the token; without, they leave as they are."""
    feed_forward: Annotated[float, Field(ge=0)] = 0.0
    """Width of a feed-forward part after the mixer, as a multiple of D; 0 for none, as in Mamba."""
    kernel: Literal["auto", "reference", "numba", "triton", "mamba_ssm"] = "auto"
    """Implementation of the scan; auto takes the fastest that runs here."""
