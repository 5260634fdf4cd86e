"""What association maps claim: the weights are what multiplies the values, exactly."""

import dataclasses
import math

import pytest
import torch

from mambacl import learners, tasks
from mambacl.learners.mixers.attention import AttentionMixer
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.convolved_config import ConvolvedConfig
from mambacl.learners.mixers.mamba import MambaMixer
from mambacl.learners.mixers.mamba3 import Mamba3Mixer
from mambacl.learners.mixers.mamba3_config import Mamba3Config
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.mixers.short_conv import ShortConv
from mambacl.learners.mixers.transformer import TransformerMixer
from mambacl.learners.mixers.transformer_config import TransformerConfig

B, L, M, D = 2, 11, 3, 8


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return torch.randn(B, L, D, dtype=torch.float64), torch.randn(B, M, D, dtype=torch.float64)


@pytest.mark.parametrize("without", [{}, {"decays": False}, {"selective_steps": False}, {"gate": False}])
def test_mamba_weights_times_values_are_what_a_query_reads(tokens, without):
    mixer = MambaMixer(MambaConfig(width=D, state_size=5, **without)).double()
    mixer.out_proj.weight.data = torch.eye(D, 2 * D, dtype=torch.float64)
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=True)
    empty = state | {"h": torch.zeros_like(state["h"])}
    (full, read), (own, _) = mixer.read(tokens[1], state), mixer.read(tokens[1], empty)
    z = mixer.in_proj(tokens[1])[..., 2 * D : 3 * D]
    gate = torch.nn.functional.silu(z) if mixer.gated else 1
    weights = mixer.weights(stream, read, slice(None))
    memory = torch.einsum("beml,ble->bme", weights, stream["u"])
    assert torch.allclose(memory[..., :D] * gate, full - own, atol=1e-12)
    assert torch.equal(weights[:, 3:7], mixer.weights(stream, read, slice(3, 7)))
    assert torch.allclose(mixer.scores(stream, read)[:, 0], read["C"] @ stream["B"].transpose(1, 2))


def test_mamba_without_decays_is_a_sum_over_the_stream(tokens):
    mixer = MambaMixer(MambaConfig(width=D, state_size=5, decays=False)).double()
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=False)
    total = torch.einsum("ble,bln->ben", stream["delta"] * stream["u"], stream["B"])
    assert torch.allclose(state["h"], total, rtol=1e-12)
    assert not [name for name, _ in mixer.named_parameters() if name == "A_log"]


def test_mamba_with_fixed_steps_writes_all_tokens_alike(tokens):
    mixer = MambaMixer(MambaConfig(width=D, state_size=5, selective_steps=False, delta=(0.03, 0.3))).double()
    _, _, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=False)
    assert torch.equal(stream["delta"], stream["delta"][:1, :1].expand_as(stream["delta"]))
    assert ((stream["delta"] > 0.029) & (stream["delta"] < 0.31)).all()


@pytest.mark.parametrize("rank", [1, 3])
def test_mamba3_weights_times_values_are_what_a_query_reads(tokens, rank):
    mixer = Mamba3Mixer(Mamba3Config(width=D, heads=2, state_size=6, rank=rank, delta=(0.1, 1), decay=0.5)).double()
    mixer.out_proj.weight.data = torch.eye(D, 2 * D, dtype=torch.float64)
    if rank > 1:
        torch.nn.init.normal_(mixer.up)
        torch.nn.init.normal_(mixer.down)
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=True)
    empty = state | {name: torch.zeros_like(state[name]) for name in ("S", "value")}
    (full, read), (own, _) = mixer.read(tokens[1], state), mixer.read(tokens[1], empty)
    gate = torch.nn.functional.silu(tokens[1] @ mixer.in_proj.weight[:D].T)
    weights = mixer.weights(stream, read, slice(None))
    values = stream["value"] if rank == 1 else stream["value"].flatten(2).unsqueeze(-1)
    memory = torch.einsum("bgml,blgp->bmgp", weights, values).flatten(2)
    assert torch.allclose(memory[..., :D] * gate, full - own, atol=1e-12)
    assert torch.equal(weights[:, 1:2], mixer.weights(stream, read, slice(1, 2)))


SOFTMAX = {
    "attention": lambda: AttentionMixer(AttentionConfig(width=D, heads=2, short_conv=0)),
    "none": lambda: TransformerMixer(TransformerConfig(width=D, heads=2, positions="none")),
    "rotary": lambda: TransformerMixer(TransformerConfig(width=D, heads=2, positions="rotary")),
    "alibi": lambda: TransformerMixer(TransformerConfig(width=D, heads=2, positions="alibi")),
    "log length": lambda: TransformerMixer(TransformerConfig(width=D, heads=2, positions="alibi", log_length=True)),
}


@pytest.mark.parametrize("kind", SOFTMAX)
def test_attention_weights_times_values_and_the_own_share_are_the_output(tokens, kind):
    mixer = SOFTMAX[kind]().double()
    mixer.out_proj.weight.data, mixer.out_proj.bias.data = torch.eye(D).double(), torch.zeros(D).double()
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=False)
    output, read = mixer.read(tokens[1], state)
    weights = mixer.weights(stream, read, slice(None))
    own_value = mixer.in_proj(tokens[1])[..., 2 * D :].view(B, M, 2, D // 2)
    memory = torch.einsum("bhml,blhp->bmhp", weights, stream["value"])
    own = (1 - weights.sum(-1)).transpose(1, 2).unsqueeze(-1) * own_value
    assert torch.allclose((memory + own).flatten(2), output, atol=1e-12)
    assert torch.allclose(mixer.scores(stream, read).softmax(-1), weights / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", ["none", "alibi", "log length"])
def test_biases_and_length_are_in_the_scores_as_in_their_papers(tokens, kind):
    mixer = SOFTMAX[kind]().double()
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=False)
    _, read = mixer.read(tokens[1], state)
    parts = mixer.in_proj(tokens[1]), mixer.in_proj(tokens[0])
    q, k = (part.chunk(3, -1)[i].unflatten(-1, (2, -1)).transpose(1, 2) for i, part in enumerate(parts))
    expected = q @ k.transpose(-1, -2) / (D // 2) ** 0.5
    if kind == "log length":
        expected = expected * math.log(L + 1) / math.log(200)
    if kind != "none":  # the two heads fall by 1/16 and 1/256 a token
        expected = expected - torch.tensor([2**-4, 2**-8]).view(2, 1, 1) * torch.arange(L, 0, -1)
    assert torch.allclose(mixer.scores(stream, read), expected)


def test_positions_of_a_training_step_start_at_random():
    """In evaluation at 0; and a stream that goes on from a state goes on with its positions, wherever it started."""
    family = tasks.build({"name": "sine", "tasks": 3, "shots": 2, "queries": 2})
    episode = family.episodes("meta_train", range(B))
    torch.manual_seed(0)
    learner, plain = (
        learners.build({"name": "transformer", "width": 8, "heads": 2, "positions": positions}, family.spec).double()
        for positions in ("random_offset", "sinusoidal")
    )
    torch.nn.init.normal_(learner.head.weight)
    plain.load_state_dict(learner.state_dict())

    def training_step(seed):
        torch.manual_seed(seed)
        learner.before_step(0)
        return learner(episode).prediction

    first = training_step(1)
    assert not torch.allclose(first, training_step(2))
    assert torch.equal(first, training_step(1))
    cut = episode.support_x.shape[1] // 2
    state = learner.observe(learner.init_state(B), episode.support_x[:, :cut], episode.support_y[:, :cut])
    rest = {"support_x": episode.support_x[:, cut:], "support_y": episode.support_y[:, cut:]}
    rest = dataclasses.replace(episode, **rest, query_after=episode.query_after - cut)
    assert torch.allclose(learner(rest, state).prediction, first, atol=1e-12)
    assert torch.equal(learner.eval()(episode).prediction, plain(episode).prediction)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_short_convolution_equals_torch_conv1d(width):
    torch.manual_seed(0)
    conv, x = (
        ShortConv(D, ConvolvedConfig(name="any", short_conv=width)).double(),
        torch.randn(B, L, D, dtype=torch.float64),
    )
    padded = torch.nn.functional.pad(x.transpose(1, 2), (width - 1, 0))
    expected = torch.nn.functional.conv1d(padded, conv.weight.T.unsqueeze(1), conv.bias, groups=D).transpose(1, 2)
    first, state = conv.stream(x[:, :4], conv.init_state(B))
    second, _ = conv.stream(x[:, 4:-1], state)
    _, state = conv.stream(x[:, :-1], conv.init_state(B))
    read = conv.read(x[:, -1:], state)
    assert torch.allclose(torch.cat([first, second, read], 1), expected, atol=1e-12)


def test_learner_warns_when_a_label_token_cannot_find_its_example(caplog):
    spec = tasks.build({"name": "sine", "tasks": 2}).spec
    learners.build({"name": "attention", "short_conv": 0}, spec)
    learners.build({"name": "transformer", "positions": "none"}, spec)
    assert [record.message.partition("; ")[2] for record in caplog.records] == [
        "set learner.short_conv or learner.positions, or learner.tokens: joined",
        "set learner.positions, or learner.tokens: joined",
    ]
    caplog.clear()
    learners.build({"name": "attention", "short_conv": 2}, spec)
    learners.build({"name": "transformer"}, spec)
    learners.build({"name": "attention", "short_conv": 0, "tokens": "joined"}, spec)
    assert not caplog.text


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"name": "mambo"},
            "learner.name: unknown 'mambo' (did you mean 'mamba'?); allowed: mamba, mamba2, mamba3,",
        ),
        ({"name": "mamba", "stat_size": 3}, "learner.stat_size: unknown field (did you mean 'state_size'?); allowed: "),
        ({"name": "mamba", "state_size": 0}, "learner.state_size: must be greater than or equal to 1, got 0"),
        ({"name": "attention", "width": 30, "heads": 4}, "learner: heads = 4 must divide width = 30"),
        (
            {"name": "transformer", "width": 12, "positions": "rotary"},
            "learner: positions: rotary needs heads of even width, not 3",
        ),
        (
            {"name": "mamba", "encoder": {"name": "cnn"}},
            "learner.encoder.name: 'cnn' needs images; allowed for vectors: mlp",
        ),
        (
            {"name": "hybrid", "mixers": ["mamba", "atention"]},
            "learner.mixers.1.name: unknown 'atention' (did you mean 'attention'?); allowed: mamba, mamba2, mamba3,",
        ),
        ({"name": "hybrid", "mixers": []}, "learner: mixers: at least one is needed"),
        (
            {"name": "hybrid", "width": 64, "mixers": [{"name": "mamba", "width": 32}]},
            "learner: mixers: layer 0 cannot have its own width; set learner.width for all layers",
        ),
        (
            {"name": "hybrid", "width": 30, "mixers": [{"name": "attention", "heads": 4}]},
            "learner.mixers.0: heads = 4 must divide width = 30",
        ),
        ({"name": "nearest_mean"}, "learner.name: 'nearest_mean' needs classification, the task is regression"),
    ],
)
def test_mistakes_are_one_line(config, line):
    spec = tasks.build({"name": "sine", "tasks": 2}).spec
    with pytest.raises(ValueError, match=r"\w") as caught:
        learners.build(config, spec)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
