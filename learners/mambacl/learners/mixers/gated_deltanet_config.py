"""Config of the gated delta network."""

from typing import ClassVar, Literal

from mambacl.learners.mixers.delta_config import DeltaConfig


class GatedDeltaNetConfig(DeltaConfig):
    """Gated DeltaNet: a token erases what the state holds under its key before it writes."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.gated_deltanet:GatedDeltaNetMixer"
    source: ClassVar[str] = "Yang et al., 2025"
    name: Literal["gated_deltanet"] = "gated_deltanet"
    """Which learner."""
