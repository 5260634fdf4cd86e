"""Config of Kimi delta attention."""

from typing import ClassVar, Literal

from mambacl.learners.mixers.delta_config import DeltaConfig


class KdaConfig(DeltaConfig):
    """Kimi delta attention: a delta rule in which every key channel decays by itself."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.kda:KdaMixer"
    source: ClassVar[str] = "Kimi team, 2025"
    name: Literal["kda"] = "kda"
    """Which learner."""
