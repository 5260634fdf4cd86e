"""Learners that `step` compares ours with: what users would otherwise build, with the weights of one of ours.

Shapes: B episodes, M queries, L tokens, D width, H heads, P width of a head.
"""

import importlib
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.learners.learner import Output, State
from mambacl.learners.mixers.attention import AttentionMixer
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.mixer import Trace
from mambacl.learners.sequence import SequenceLearner
from mambacl.tasks.episode import Episode


class QuadraticMixer(AttentionMixer):
    """Attention over stream and queries at once: the last tokens are the queries."""

    def __init__(self, config: AttentionConfig, queries: int) -> None:
        super().__init__(config)
        self.queries = queries

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        M, L = self.queries, x_BLD.shape[1]
        if self.conv:
            stream, after = self.conv.stream(x_BLD[:, :-M], self.conv.init_state(len(x_BLD)))
            x_BLD = torch.cat([stream, self.conv.read(x_BLD[:, -M:], after)], dim=1)
        q, k, v = self._project(x_BLD, torch.arange(L))
        mask = torch.ones(L, L, dtype=torch.bool).tril()
        mask[-M:, -M:] = torch.eye(M, dtype=torch.bool)
        y_BHLP = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(rearrange(y_BHLP, "b h l p -> b l (h p)")), state, {}


class QuadraticAttention(SequenceLearner):
    """Attention as the ancestors have it: one sequence of stream and queries under one mask, which lets a query see the stream
    and itself. Answers as our attention does."""

    def __init__(self, ours: SequenceLearner, queries: int) -> None:
        super().__init__(ours.config, ours.spec)
        for block in self._blocks:
            block.mixer = QuadraticMixer(ours.config, queries)
        self.load_state_dict(ours.state_dict())

    def forward(self, episode: Episode, state: State | None = None, **options: Any) -> Output:
        support, asked = self.inputs(episode)
        tokens = torch.cat([support.flatten(1, 2), asked], dim=1)
        for block in self._blocks:
            tokens, _, _ = block.stream(tokens, {}, outputs=True)
            assert tokens is not None
        return Output(self.head(self.norm(tokens[:, -asked.shape[1] :])))


class TransformersMamba(SequenceLearner):
    """The Mamba of transformers between our encoder and our head, with the queries behind the stream.

    Its cache is written in place and cannot be trained through; a copy of the stream for each query, which would be right,
    costs as many times more. So this is the cheapest that can be trained, and a query reads those before it, too: the first
    of an episode is answered as ours is.
    """

    def __init__(self, ours: SequenceLearner) -> None:
        super().__init__(ours.config, ours.spec)
        self.load_state_dict(ours.state_dict())
        theirs, config = transformers_mamba(), ours.config
        sizes = theirs.MambaConfig(
            vocab_size=1,
            hidden_size=config.width,
            state_size=config.state_size,
            num_hidden_layers=config.layers,
            expand=config.expand,
            conv_kernel=config.short_conv,
            layer_norm_epsilon=torch.finfo(torch.float32).eps,
            use_cache=False,
        )
        self.backbone = theirs.MambaModel(sizes)
        self.backbone.norm_f.load_state_dict(self.norm.state_dict())
        for layer, block in zip(self.backbone.layers, self._blocks, strict=True):
            layer.load_state_dict(renamed(block))
        self.backbone.embeddings = nn.Identity()  # it reads tokens that are embedded already
        self.blocks, self.norm = nn.ModuleList(), nn.Identity()

    def forward(self, episode: Episode, state: State | None = None, **options: Any) -> Output:
        support, asked = self.inputs(episode)
        tokens = torch.cat([support.flatten(1, 2), asked], dim=1)
        read = self.backbone(inputs_embeds=tokens, use_cache=False).last_hidden_state
        return Output(self.head(read[:, -asked.shape[1] :]))


def transformers_mamba() -> ModuleType:
    """transformers' Mamba; it imports torchvision, and could not by itself."""
    importlib.import_module("mambacl.tasks.vision")
    return importlib.import_module("transformers.models.mamba.modeling_mamba")


def renamed(block: nn.Module) -> dict[str, Tensor]:
    """The weights of a block or mixer of ours as transformers names and lays them out."""
    return {
        name.replace("conv.", "conv1d."): value.T.unsqueeze(1) if name.endswith("conv.weight") else value
        for name, value in block.state_dict().items()
    }
