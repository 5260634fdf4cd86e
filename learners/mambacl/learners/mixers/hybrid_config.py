"""Config of a stack whose layers have different mixers."""

import functools
import operator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.gated_deltanet_config import GatedDeltaNetConfig
from mambacl.learners.mixers.kda_config import KdaConfig
from mambacl.learners.mixers.linear_attention_config import LinearAttentionConfig
from mambacl.learners.mixers.mamba2_config import Mamba2Config
from mambacl.learners.mixers.mamba3_config import Mamba3Config
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.mixers.mesanet_config import MesaNetConfig
from mambacl.learners.mixers.mlstm_config import MlstmConfig
from mambacl.learners.mixers.performer_config import PerformerConfig
from mambacl.learners.mixers.transformer_config import TransformerConfig
from mambacl.learners.sequence_config import SequenceConfig, StackConfig

MIXERS: tuple[type[SequenceConfig], ...] = (
    MambaConfig,
    Mamba2Config,
    Mamba3Config,
    AttentionConfig,
    TransformerConfig,
    LinearAttentionConfig,
    PerformerConfig,
    GatedDeltaNetConfig,
    KdaConfig,
    MlstmConfig,
    MesaNetConfig,
)
"""Configs of the learners that are a stack of one mixer."""

OF_ALL = ("layers", "width", "tokens", "encoder", "experts", "positions")
"""Fields that all layers have in common."""

Layer = Annotated[functools.reduce(operator.or_, MIXERS), Field(discriminator="name")]


class HybridConfig(StackConfig):
    """A stack whose layers have different mixers, each with its own fields: a few layers of attention among many of fixed state, say."""

    implementation: ClassVar[str] = "mambacl.learners.sequence:SequenceLearner"
    source: ClassVar[str] = "Lieber et al., 2024"
    name: Literal["hybrid"] = "hybrid"
    """Which learner."""
    mixers: Annotated[tuple[Layer, ...], Field(min_length=1)] = (MambaConfig(), AttentionConfig())
    """Mixer of each layer: a name, or a mapping with `name` and the fields of that learner that are a layer's own."""
    positions: Literal["none", "sinusoidal"] = "none"
    """Position information added to the tokens."""

    @field_validator("mixers", mode="before")
    @classmethod
    def _named(cls, mixers: Any) -> Any:
        if not isinstance(mixers, list | tuple):
            return mixers
        return [{"name": mixer} if isinstance(mixer, str) else mixer for mixer in mixers]

    @field_serializer("mixers")
    def _own(self, mixers: tuple[SequenceConfig, ...], info: Any) -> list[dict[str, Any]]:
        return [mixer.model_dump(mode=info.mode, exclude=set(OF_ALL)) for mixer in mixers]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for layer, mixer in enumerate(self.mixers):
            if common := sorted(mixer.model_fields_set & set(OF_ALL)):
                raise ValueError(
                    f"mixers: layer {layer} cannot have its own {common[0]}; set learner.{common[0]} for all"
                )
        return self

    @property
    def blocks(self) -> tuple[SequenceConfig, ...]:
        own = (mixer.model_dump(exclude=set(OF_ALL)) for mixer in self.mixers)
        return tuple(
            type(mixer).model_validate(fields | {"width": self.width, "positions": "none"})
            for mixer, fields in zip(self.mixers, own, strict=True)
        )
