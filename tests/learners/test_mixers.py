"""What association maps claim: the weights are what multiplies the values, exactly."""

import pytest
import torch

from mambacl.learners.mixers.attention import AttentionMixer
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.mamba import MambaMixer
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.mixers.short_conv import ShortConv

B, L, M, D = 2, 11, 3, 8


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return torch.randn(B, L, D, dtype=torch.float64), torch.randn(B, M, D, dtype=torch.float64)


def test_mamba_weights_times_values_are_what_a_query_reads(tokens):
    mixer = MambaMixer(MambaConfig(width=D, state_size=5)).double()
    mixer.out_proj.weight.data = torch.eye(D, 2 * D, dtype=torch.float64)
    x, z = mixer.in_proj(tokens[1]).chunk(2, -1)
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=True)
    empty = state | {"h": torch.zeros_like(state["h"])}
    (full, read), (own, _) = mixer.read(tokens[1], state), mixer.read(tokens[1], empty)
    gate = torch.nn.functional.silu(z)[..., :D]
    weights = mixer.weights(stream, read, slice(None))
    memory = torch.einsum("beml,ble->bme", weights, stream["u"])
    assert torch.allclose(memory[..., :D] * gate, full - own, atol=1e-12)
    assert torch.equal(weights[:, 3:7], mixer.weights(stream, read, slice(3, 7)))
    assert torch.allclose(mixer.scores(stream, read)[:, 0], read["C"] @ stream["B"].transpose(1, 2))
    assert x.shape == (B, M, 2 * D)


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_attention_weights_times_values_and_the_own_share_are_the_output(tokens, positions):
    mixer = AttentionMixer(AttentionConfig(width=D, heads=2, positions=positions, short_conv=0)).double()
    mixer.out_proj.weight.data, mixer.out_proj.bias.data = torch.eye(D).double(), torch.zeros(D).double()
    _, state, stream = mixer.stream(tokens[0], mixer.init_state(B), outputs=False)
    output, read = mixer.read(tokens[1], state)
    weights = mixer.weights(stream, read, slice(None))
    own_value = mixer.in_proj(tokens[1])[..., 2 * D :].view(B, M, 2, D // 2)
    memory = torch.einsum("bhml,blhp->bmhp", weights, stream["value"])
    own = (1 - weights.sum(-1)).transpose(1, 2).unsqueeze(-1) * own_value
    assert torch.allclose((memory + own).flatten(2), output, atol=1e-12)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_short_convolution_equals_torch_conv1d(width):
    torch.manual_seed(0)
    conv, x = ShortConv(D, width).double(), torch.randn(B, L, D, dtype=torch.float64)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (width - 1, 0))
    expected = torch.nn.functional.conv1d(padded, conv.weight.T.unsqueeze(1), conv.bias, groups=D).transpose(1, 2)
    first, state = conv.stream(x[:, :4], conv.init_state(B))
    second, _ = conv.stream(x[:, 4:-1], state)
    _, state = conv.stream(x[:, :-1], conv.init_state(B))
    read = conv.read(x[:, -1:], state)
    assert torch.allclose(torch.cat([first, second, read], 1), expected, atol=1e-12)


def test_learner_warns_when_a_label_token_cannot_find_its_example(caplog):
    from mambacl import learners, tasks

    spec = tasks.build({"name": "sine", "tasks": 2}).spec
    learners.build({"name": "attention", "short_conv": 0}, spec)
    assert "a label token cannot find its example" in caplog.text
    caplog.clear()
    learners.build({"name": "attention", "short_conv": 2}, spec)
    learners.build({"name": "attention", "short_conv": 0, "tokens": "joined"}, spec)
    assert not caplog.text


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"name": "mambo"},
            "learner.name: unknown 'mambo' (did you mean 'mamba'?); allowed: mamba, mamba2, attention,",
        ),
        ({"name": "mamba", "stat_size": 3}, "learner.stat_size: unknown field (did you mean 'state_size'?); allowed: "),
        ({"name": "mamba", "state_size": 0}, "learner.state_size: must be greater than or equal to 1, got 0"),
        ({"name": "attention", "width": 30, "heads": 4}, "learner: heads = 4 must divide width = 30"),
        (
            {"name": "mamba", "encoder": {"name": "cnn"}},
            "learner.encoder.name: 'cnn' needs images; allowed for vectors: mlp",
        ),
        ({"name": "nearest_mean"}, "learner.name: 'nearest_mean' needs classification, the task is regression"),
    ],
)
def test_mistakes_are_one_line(config, line):
    from mambacl import learners, tasks

    spec = tasks.build({"name": "sine", "tasks": 2}).spec
    with pytest.raises(ValueError, match=r"\w") as caught:
        learners.build(config, spec)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
