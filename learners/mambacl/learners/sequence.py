"""Sequence learners: encoder, tokens, blocks, head. What differs between them is the mixer inside a block.

Shapes: B episodes, T support examples, M queries, L tokens, D width, V label codes.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mambacl.learners.encoders.encoders import Mlp, build_encoder
from mambacl.learners.fused import Linear, RMSNorm
from mambacl.learners.learner import Association, Learner, Output, State, attachments, bounded, take, untake
from mambacl.learners.mixers.mixer import Mixer, Trace
from mambacl.learners.mixture import Mixture, balance_loss
from mambacl.learners.sequence_config import SequenceConfig
from mambacl.learners.similarity import start_by_similarity
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec

logger = logging.getLogger("mambacl")

ROUTING = ("router", "chosen")
"""What a block with experts adds to the traces."""

WAYS = ("short_conv", "positions", "turned")
"""Fields by each of which a label token can find its example."""

OFFSETS = 2048
"""Positions that a stream with `random_offset` may start from in training: as many as 1,000 examples have tokens."""

MAP_FLOATS = 2**24
"""Largest intermediate of an exact association map; groups of channels are taken in turns below it."""


class Block(nn.Module):
    """Pre-norm residual mixer, then an optional pre-norm residual feed-forward part, dense or of experts."""

    def __init__(self, config: SequenceConfig, mixer: Mixer) -> None:
        super().__init__()
        D, F = config.width, round(config.feed_forward * config.width)
        self.norm, self.mixer = RMSNorm(D), mixer
        self.dropout = nn.Dropout(config.dropout)
        dense = F and not config.experts
        self.feed_forward = (
            nn.Sequential(RMSNorm(D), Linear(D, F), nn.GELU(), Linear(F, D), self.dropout) if dense else None
        )
        self.expert_norm = RMSNorm(D) if config.experts else None
        self.experts = Mixture(D, F, config.experts) if config.experts else None

    def stream(self, x_BLD: Tensor, state: State, outputs: bool) -> tuple[Tensor | None, State, Trace]:
        mixed, state, trace = self.mixer.stream(self.norm(x_BLD), state, outputs)
        if mixed is None:
            return None, state, trace
        x_BLD, routing = self._rest(x_BLD, mixed)
        return x_BLD, state, trace | routing

    def read(self, x_BMD: Tensor, state: State) -> tuple[Tensor, Trace]:
        mixed, trace = self.mixer.read(self.norm(x_BMD), state)
        x_BMD, routing = self._rest(x_BMD, mixed)
        return x_BMD, trace | routing

    def _rest(self, x: Tensor, mixed: Tensor) -> tuple[Tensor, Trace]:
        x = x + self.dropout(mixed)
        if self.experts and self.expert_norm:
            y, routing = self.experts(self.expert_norm(x))
            return x + self.dropout(y), routing
        return (x + self.feed_forward(x) if self.feed_forward else x), {}


class SequenceLearner(Learner):
    """Reads tokens through a stack of blocks; each block's mixer keeps a state, and the state is all that is kept."""

    def __init__(self, config: Any, spec: Spec) -> None:
        """config: a StackConfig with the mixer's own fields (positions, short_conv and more)."""
        super().__init__(spec)
        self.config = config
        self.start = 0
        self.routed = any(block.experts for block in config.blocks)
        D = config.width
        self.encoder = build_encoder(config.encoder, spec, D)
        classes = spec.output == "classification"
        self.label = nn.Embedding(spec.size, D) if classes else Mlp(spec.size, D, layers=2)
        self.unlabelled = nn.Parameter(torch.zeros(D)) if self.joined else None
        self.blocks = nn.ModuleList(Block(block, block.implemented()(block)) for block in config.blocks)
        self.norm = RMSNorm(D)
        self.head = Linear(D, spec.size)
        # A head of zeros: fresh answers are even, so the first gradients are not spent on hushing random ones, which
        # would flatten the features before any association has formed.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if config.start == "similarity":
            if not classes:
                raise ConfigError(
                    f"learner.start: 'similarity' needs label codes, the task is {spec.output}; allowed: random"
                )
            start_by_similarity(self, spec.size)
        parts = (config, *config.blocks)
        ways = [field for field in WAYS if any(hasattr(part, field) for part in parts)]
        if not self.joined and all(getattr(part, field, 0) in (0, "none") for part in parts for field in ways):
            logger.warning(
                "learner: a label token cannot find its example; set %s, or learner.tokens: joined",
                " or ".join(f"learner.{field}" for field in ways),
            )

    @property
    def layers(self) -> int:
        return len(self.blocks)

    @property
    def joined(self) -> bool:
        return self.config.tokens == "joined"

    @property
    def tokens_per_example(self) -> int:
        return 1 if self.joined else 2

    def scan_flops(self, examples: int) -> int:
        tokens = examples * self.tokens_per_example
        return sum(block.mixer.scan_flops(tokens, block is not self.blocks[-1]) for block in self._blocks)

    def read_flops(self, queries: int) -> int:
        return sum(block.mixer.scan_flops(queries, True) for block in self._blocks)

    def before_step(self, step: int) -> None:
        if self.config.positions == "random_offset":  # "SHAPE" (Kiyono et al., 2021)
            self.start = int(torch.randint(OFFSETS, ()))
        for block in self._blocks:
            block.mixer.before_step(step)

    def init_state(self, batch_size: int) -> State:
        # The position of the next token: not always their number, as positions of a training step may start elsewhere.
        tokens = torch.tensor(self.start if self.training else 0)
        return {"tokens": tokens, "layers": [block.mixer.init_state(batch_size) for block in self._blocks]}

    def state_floats(self, examples: int) -> int:
        return sum(block.mixer.state_floats(examples * self.tokens_per_example) for block in self._blocks)

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        x, y = self.chunk(x, y)
        return self.absorb(state, self._tokens(_each(self.encoder, x), y), y)

    def predict(self, state: State, x: Tensor) -> Output:
        return Output(self.answer(state, self._asked(_each(self.encoder, x))))

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        """The state after a chunk of the stream, given its tokens (B, T, tokens an example, D), which hold the labels."""
        return self._observe(state, x)[0]

    def answer(self, state: State, x: Tensor) -> Tensor:
        """Predictions for queries, given their tokens (B, M, D)."""
        return self._predict(state, x)[0]

    def inputs(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """Tokens of the support examples (B, T, tokens an example, D) and of the queries (B, M, D)."""
        support, asked = _each(self.encoder, episode.support_x), _each(self.encoder, episode.query_x)
        noise = episode.noise
        if noise and noise.site == "encoder_out":
            support, asked = noise.add(support, asked, episode.index)
        tokens, asked = self._tokens(support, episode.support_y), self._asked(asked)
        if noise and noise.site == "token":
            flat, asked = noise.add(tokens.flatten(1, 2), asked, episode.index)
            tokens = flat.view_as(tokens)
        return tokens, asked

    def forward(
        self, episode: Episode, state: State | None = None, *, layers: Sequence[int] = (), exact: bool = False
    ) -> Output:
        chosen = self._layer_numbers(layers)
        kept = range(self.layers) if self.routed else chosen
        state = self.init_state(len(episode.index)) if state is None else state
        support, asked = self.inputs(episode)
        answers, streams, reads = [], [], []
        for start, stop, queries in attachments(episode.query_after):
            state, stream = self._observe(state, support[:, start:stop])
            answer, read = self._predict(state, take(asked, queries))
            answers.append(answer)
            streams.append({layer: stream[layer] for layer in kept})
            reads.append({layer: read[layer] for layer in kept})

        def of_stream(layer: int) -> Trace:
            return {name: torch.cat([s[layer][name] for s in streams], dim=1) for name in streams[0][layer]}

        def of_queries(layer: int) -> Trace:
            return {name: untake([r[layer][name] for r in reads], episode.query_after) for name in reads[0][layer]}

        maps = [
            self._association(layer, of_stream(layer), of_queries(layer), episode.query_after, exact)
            for layer in chosen
        ]
        prediction = untake(answers, episode.query_after)
        if not self.routed:
            return Output(prediction, tuple(maps))
        balance, use = torch.zeros((), device=prediction.device), []
        for layer in range(self.layers):
            stream, read = of_stream(layer), of_queries(layer)
            routed = {
                name: torch.cat([stream[name], read[name]], 1) if name in stream else read[name] for name in ROUTING
            }
            balance = balance + balance_loss(*routed.values())
            use.append(read["chosen"])
        return Output(prediction, tuple(maps), balance, tuple(use))

    @property
    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]  # ModuleList is not generic

    def _layer_numbers(self, layers: Sequence[int]) -> list[int]:
        count = len(self.blocks)
        if wrong := [layer for layer in layers if not -count <= layer < count]:
            raise ConfigError(f"layers: {wrong[0]} is not one of the {count} layers")
        return sorted({layer % count for layer in layers})

    def _tokens(self, image_BTD: Tensor, y: Tensor) -> Tensor:
        """Tokens (B, T, 1 or 2, D) of encoded examples and their codes or values."""
        label_BTD = _each(self.label, y)
        return (image_BTD + label_BTD).unsqueeze(2) if self.joined else torch.stack([image_BTD, label_BTD], dim=2)

    def _asked(self, image_BMD: Tensor) -> Tensor:
        """Tokens (B, M, D) of encoded queries."""
        return image_BMD if self.unlabelled is None else image_BMD + self.unlabelled

    def _observe(self, state: State, tokens_BTCD: Tensor) -> tuple[State, list[Trace]]:
        """The state after a chunk of the stream, and what each layer kept of its tokens."""
        count = tokens_BTCD.shape[1] * tokens_BTCD.shape[2]
        tokens = tokens_BTCD.flatten(1, 2)
        tokens = self._place(tokens, int(state["tokens"]) + torch.arange(count, device=tokens.device))
        after, traces = [], []
        for block, before in zip(self._blocks, state["layers"], strict=True):
            # Nothing reads the last layer's outputs on the stream: its state is all that is wanted.
            assert tokens is not None
            tokens, layer, trace = block.stream(tokens, before, outputs=block is not self.blocks[-1])
            after.append(layer)
            traces.append(trace)
        return {"tokens": state["tokens"] + count, "layers": after}, traces

    def _predict(self, state: State, queries: Tensor) -> tuple[Tensor, list[Trace]]:
        """Predictions for the tokens of queries (B, M, D), and what each layer kept of them."""
        queries = self._place(queries, torch.full((queries.shape[1],), int(state["tokens"]), device=queries.device))
        traces = []
        for block, before in zip(self._blocks, state["layers"], strict=True):
            queries, trace = block.read(queries, before)
            traces.append(trace)
        return bounded(self.head(self.norm(queries)), self.spec), traces

    def _place(self, tokens: Tensor, position_L: Tensor) -> Tensor:
        if self.config.positions not in ("sinusoidal", "random_offset"):
            return tokens
        return tokens + sinusoids(position_L, tokens.shape[-1]).to(tokens.dtype)

    def _association(self, layer: int, tokens: Trace, queries: Trace, query_after: Tensor, exact: bool) -> Association:
        mixer = self._blocks[layer].mixer
        count = self.tokens_per_example
        L = next(iter(tokens.values())).shape[1]
        position = torch.arange(L, device=query_after.device)
        hidden = position // count > query_after.unsqueeze(-1)  # (B, M, L)
        weights = None
        if exact:
            if hidden.any():
                raise ValueError("exact association maps need all queries asked at the end of the stream")
            weights = exact_weights(mixer, tokens, queries)
        scores = mixer.scores(tokens, queries).masked_fill(hidden.unsqueeze(1), -torch.inf)
        labelled = position % count == count - 1
        return Association(layer, scores, weights, position // count, labelled, mixer.normalisation)


def _each(encode: nn.Module, values: Tensor) -> Tensor:
    """Encode each of values (B, T, ...) by itself, to (B, T, D)."""
    return encode(values.flatten(0, 1)).unflatten(0, values.shape[:2])


def exact_weights(mixer: Mixer, tokens: Trace, queries: Trace) -> Tensor:
    """Magnitude with which each query truly reads each token (B, M, L): |weight| summed over channels, rows sum to 1."""
    size = next(iter(queries.values())).shape[:2].numel() * next(iter(tokens.values())).shape[1]
    step = max(1, MAP_FLOATS // size)
    total = torch.zeros(())
    for start in range(0, mixer.groups, step):
        part = mixer.weights(tokens, queries, slice(start, start + step)).abs().sum(1)
        total = part if start == 0 else total + part
    return total / total.sum(-1, keepdim=True).clamp(min=torch.finfo(total.dtype).tiny)


def sinusoids(position_L: Tensor, width: int) -> Tensor:
    """Sinusoidal positions, base 10,000 (Vaswani et al., 2017): (L, width) float64."""
    rate = 10_000.0 ** (-torch.arange(0, width, 2, device=position_L.device, dtype=torch.float64) / width)
    angle = position_L.double().unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
