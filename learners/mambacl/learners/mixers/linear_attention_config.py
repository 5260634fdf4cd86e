"""Config of the linear transformer."""

from typing import ClassVar, Literal

from mambacl.learners.mixers.matrix_config import MatrixConfig


class LinearAttentionConfig(MatrixConfig):
    """Linear transformer: attention with elu + 1 features, so that a sum over the stream is enough."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.linear_attention:LinearAttentionMixer"
    source: ClassVar[str] = "Katharopoulos et al., 2020"
    name: Literal["linear_attention"] = "linear_attention"
    """Which learner."""
