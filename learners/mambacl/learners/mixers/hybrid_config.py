"""Config of a stack whose layers have different mixers."""

import functools
import operator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_serializer, model_validator

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
    mixers: tuple[Layer, ...] = (MambaConfig(), AttentionConfig())
    """Mixer of each layer: a name, or a mapping with `name` and the fields of that learner that are a layer's own."""
    positions: Literal["none", "sinusoidal"] = "none"
    """Position information added to the tokens."""

    @model_validator(mode="before")
    @classmethod
    def _as_wide(cls, values: Any) -> Any:
        """Names as mappings, and all mixers with the width of the stack."""
        if not isinstance(values, dict):
            return values
        mixers, width = (values.get(field, cls.model_fields[field].default) for field in ("mixers", "width"))
        if not isinstance(mixers, list | tuple):
            return values
        return values | {"mixers": [_wide(mixer, width) for mixer in mixers]}

    @field_serializer("mixers")
    def _own(self, mixers: tuple[SequenceConfig, ...], info: Any) -> list[dict[str, Any]]:
        return [mixer.model_dump(mode=info.mode, exclude=set(OF_ALL)) for mixer in mixers]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.mixers:
            raise ValueError("mixers: at least one is needed")
        for layer, mixer in enumerate(self.mixers):
            for field in OF_ALL:
                own, common = getattr(mixer, field), getattr(self, field, None)
                if own not in (common, type(mixer).model_fields[field].default):
                    raise ValueError(
                        f"mixers: layer {layer} cannot have its own {field}; set learner.{field} for all layers"
                    )
        return self

    @property
    def blocks(self) -> tuple[SequenceConfig, ...]:
        return self.mixers


def _wide(mixer: Any, width: Any) -> Any:
    if isinstance(mixer, SequenceConfig):  # whose width is that of a stack it was in
        return mixer.model_dump() | {"width": width}
    mixer = {"name": mixer} if isinstance(mixer, str) else mixer
    return {"width": width} | mixer if isinstance(mixer, dict) else mixer
