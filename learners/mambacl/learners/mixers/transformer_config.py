"""Config of the standard transformer."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from mambacl.learners.mixers.softmax_config import SoftmaxConfig


class TransformerConfig(SoftmaxConfig):
    """Standard transformer, as the paper compares with: softmax attention with sinusoidal positions and without convolution."""

    implementation: ClassVar[str] = "mambacl.learners.mixers.transformer:TransformerMixer"
    source: ClassVar[str] = "Vaswani et al., 2017; Lee et al., 2023"
    name: Literal["transformer"] = "transformer"
    """Which learner."""
    positions: Literal["sinusoidal", "random_offset", "alibi", "rotary", "none"] = "sinusoidal"
    """How tokens know where they stand: sinusoids added to them; the same, but in training from a random position on, drawn anew
    each step, so that those of longer streams are not new; biases that fall linearly with distance; or rotation of queries
    and keys by their distance."""
    log_length: bool = False
    """Scale the logits of a token by the logarithm of the number of tokens that it sees, so that its shares of attention stay
    as sharp in longer streams (Chiang and Cholak, 2022; Nakanishi, 2025)."""

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(f"positions: rotary needs heads of even width, not {self.width // self.heads}")
        return self
