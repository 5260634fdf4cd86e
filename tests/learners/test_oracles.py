"""Learners against implementations that we did not write, and against their papers' formulas one token at a time."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mambacl.learners.mixers.gated_deltanet import GatedDeltaNetMixer, unit
from mambacl.learners.mixers.gated_deltanet_config import GatedDeltaNetConfig
from mambacl.learners.mixers.linear_attention import LinearAttentionMixer
from mambacl.learners.mixers.linear_attention_config import LinearAttentionConfig
from mambacl.learners.mixers.mamba import MambaMixer
from mambacl.learners.mixers.mamba2 import Mamba2Mixer
from mambacl.learners.mixers.mamba2_config import Mamba2Config
from mambacl.learners.mixers.mamba3 import Mamba3Mixer
from mambacl.learners.mixers.mamba3_config import Mamba3Config
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.mixers.mesanet import MesaNetMixer
from mambacl.learners.mixers.mesanet_config import MesaNetConfig
from mambacl.learners.mixers.mlstm import MlstmMixer
from mambacl.learners.mixers.mlstm_config import MlstmConfig
from mambacl.learners.mixers.performer import PerformerMixer
from mambacl.learners.mixers.performer_config import PerformerConfig

B, L, D = 2, 45, 16


@pytest.fixture(scope="module")
def transformers():
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):  # the CPU build of torch lacks these operators, and torchvision's import asks for them
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("transformers")
    del library  # the operators live as long as it does


@pytest.fixture
def x():
    return torch.randn(B, L, D, generator=torch.Generator().manual_seed(0))


def disturb(module):
    """Random weights everywhere, so that no part is neutral."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))


def copy(theirs, ours):
    """Copy weights by name; our convolution keeps its filters as (width, channels)."""
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            target = dict(ours.named_parameters())[name.replace("conv1d", "conv")]
            target.copy_(parameter.squeeze(1).T if name == "conv1d.weight" else parameter)


@pytest.mark.parametrize("N", [1, 8, 33])
def test_mamba_equals_transformers(transformers, x, N):
    from transformers.models.mamba.modeling_mamba import MambaMixer as Theirs

    torch.manual_seed(0)
    theirs = Theirs(transformers.MambaConfig(hidden_size=D, state_size=N, num_hidden_layers=1), 0).eval()
    disturb(theirs)
    ours = MambaMixer(MambaConfig(width=D, state_size=N))
    copy(theirs, ours)
    output, _, _ = ours.stream(x, ours.init_state(B), outputs=True)
    assert torch.allclose(output, theirs(x), atol=1e-5)


@pytest.mark.parametrize("N", [1, 8, 33])
def test_mamba2_equals_transformers(transformers, x, N):
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as Theirs

    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        hidden_size=D, state_size=N, num_heads=4, head_dim=8, n_groups=1, chunk_size=16, num_hidden_layers=1
    )
    theirs = Theirs(config, 0).eval()
    disturb(theirs)
    ours = Mamba2Mixer(Mamba2Config(width=D, state_size=N, heads=4))
    copy(theirs, ours)
    output, _, _ = ours.stream(x, ours.init_state(B), outputs=True)
    assert torch.allclose(output, theirs(x), atol=1e-5)


def naive(mixer, x):
    """What the tokens write, as a mixer would pass it to its recurrence, in float64."""
    state = mixer.init_state(B)
    return mixer.writes(x, lambda c, silu: mixer.conv.stream(c, state["conv"], silu)[0], True)[0]


def heads_output(mixer, x):
    """What the heads read, before the way out."""
    kept = []
    leave = mixer.leave
    mixer.leave = lambda y, *rest: (kept.append(y), leave(y, *rest))[1]
    mixer.stream(x, mixer.init_state(B), outputs=True)
    return kept[0].unflatten(-1, (mixer.heads, -1)).transpose(1, 2)


def made(kind, config, x):
    torch.manual_seed(0)
    mixer = kind(config).double()
    disturb(mixer)
    return mixer, x.double()


@pytest.mark.parametrize(("rank", "turned"), [(1, 0.5), (1, 0), (3, 1)])
def test_mamba3_equals_its_equations(x, rank, turned):
    """One token after the other, with a complex state whose numbers turn each by its own angle, instead of real keys and queries that
    turn by the angle that has run up."""
    config = Mamba3Config(width=D, heads=4, state_size=8, rank=rank, turned=turned, delta=(0.05, 0.5), decay=0.5)
    mixer, x = made(Mamba3Mixer, config, x)
    H, N, R, E, J = 4, 8, rank, 2 * D, mixer.angles
    z, v, k, q, step, rate, part, turn = (x @ mixer.in_proj.weight.T).split([E, E, R * N, R * N, H, H, H, J], -1)

    def normed(rows, norm, bias):
        return F.rms_norm(rows.unflatten(-1, (R, N)), (N,), norm.weight).unsqueeze(2) + bias  # (B, L, H, R, N)

    def complex_rows(rows):
        return torch.cat([torch.complex(rows[..., :J], rows[..., J : 2 * J]), rows[..., 2 * J :] + 0j], -1)

    k, q = (
        complex_rows(normed(*given))
        for given in ((k, mixer.key_norm, mixer.key_bias), (q, mixer.query_norm, mixer.query_bias))
    )
    v = v.unflatten(-1, (H, -1)).unsqueeze(3)
    rows = v if mixer.up is None else v * mixer.up
    step = F.softplus(step + mixer.step_bias)
    decay = torch.where(rate >= 0, 1 + rate, 1 / (1 - rate)) * config.decay
    part = part.sigmoid()
    state = torch.zeros(B, H, k.shape[-1], E // H, dtype=torch.complex128)
    before, outputs = torch.zeros_like(state), []
    for t in range(L):
        a = torch.exp(-step[:, t] * decay[:, t]).view(B, H, 1, 1)
        # Conjugate keys: Q conj(K) is then the product of real keys and queries, and a state turns against their angle.
        angle = torch.cat([step[:, t, :, None] * turn[:, t, None], torch.zeros(B, H, k.shape[-1] - J)], -1)
        a = a * torch.exp(1j * angle).unsqueeze(-1)
        write = torch.einsum("bhrn,bhrp->bhnp", k[:, t].conj(), rows[:, t] + 0j)
        now = (part * step)[:, t].view(B, H, 1, 1)
        late = ((1 - part) * step)[:, t].view(B, H, 1, 1)
        state = a * state + a * late * before + now * write
        before = write
        y = torch.einsum("bhrn,bhnp->bhrp", q[:, t], state).real
        y = y.squeeze(2) if mixer.down is None else (y * mixer.down).sum(2)
        outputs.append((y + mixer.D.view(H, 1) * v[:, t, :, 0]).flatten(1))
    expected = (torch.stack(outputs, 1) * F.silu(z)) @ mixer.out_proj.weight.T
    output, after, _ = mixer.stream(x, mixer.init_state(B), outputs=True)
    assert torch.allclose(output, expected, rtol=1e-9, atol=1e-9)
    _, middle, _ = mixer.stream(x[:, :17], mixer.init_state(B), outputs=False)
    rest, end, _ = mixer.stream(x[:, 17:], middle, outputs=True)
    assert torch.allclose(rest, output[:, 17:], rtol=1e-9, atol=1e-9)
    assert all(torch.allclose(end[name], after[name], atol=1e-9) for name in ("S", "key", "value"))


def test_linear_attention_equals_the_quadratic_form(x):
    mixer, x = made(LinearAttentionMixer, LinearAttentionConfig(width=D, heads=2, state_size=6), x)
    w = naive(mixer, x)
    scores = (w.query @ w.key.transpose(-1, -2)).tril()
    expected = scores / scores.sum(-1, keepdim=True) @ w.value
    assert torch.allclose(heads_output(mixer, x), expected, rtol=1e-9)


def test_performer_estimates_softmax_attention(x):
    """With many features the shares are those of softmax attention: Choromanski et al., 2021, Lemma 1."""
    mixer, x = made(PerformerMixer, PerformerConfig(width=D, heads=2, state_size=1024), x)
    q, k = (0.5 * torch.randn(4, 8, dtype=torch.float64) for _ in range(2))
    estimate = mixer.features(q, query=True) @ mixer.features(k, query=False).T
    exact = torch.softmax(q @ k.T / 8**0.5, -1)
    assert torch.allclose(estimate / estimate.sum(-1, keepdim=True), exact, atol=0.03)
    gram = mixer.directions[:8] @ mixer.directions[:8].T
    assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-5)


def test_mlstm_equals_its_recurrence_without_stabiliser(x):
    mixer, x = made(MlstmMixer, MlstmConfig(width=D, heads=2, state_size=6), x)
    w = naive(mixer, x)
    S = torch.zeros(B, 2, 6, D, dtype=torch.float64)
    n = torch.zeros(B, 2, 6, dtype=torch.float64)
    outputs = []
    for t in range(L):
        f, i = w.log_decay[:, :, t].exp(), w.strength[:, :, t].exp().unsqueeze(-1)
        q, k, v = w.query[:, :, t], w.key[:, :, t], w.value[:, :, t]
        S = f.unsqueeze(-1) * S + (i * k).unsqueeze(-1) * v.unsqueeze(-2)
        n = f * n + i * k
        divisor = (n * q).sum(-1, keepdim=True).abs().clamp(min=1)
        outputs.append((q.unsqueeze(-2) @ S).squeeze(-2) / divisor)
    assert torch.allclose(heads_output(mixer, x), torch.stack(outputs, 2), rtol=1e-9, atol=1e-12)


def test_mlstm_bears_input_gates_that_overflow(x):
    """exp(200) is infinite in float32: the stabiliser keeps answers and gradients finite."""
    mixer = MlstmMixer(MlstmConfig(width=D, heads=2, state_size=6))
    with torch.no_grad():
        mixer.gates.bias[:2] = 200.0
    output, _, _ = mixer.stream(x, mixer.init_state(B), outputs=True)
    output.square().sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(p.grad).all() for p in mixer.parameters())


def test_gated_deltanet_equals_its_recurrence(x):
    mixer, x = made(GatedDeltaNetMixer, GatedDeltaNetConfig(width=D, heads=2, state_size=6), x)
    w = unit(naive(mixer, x))
    S, eye, outputs = torch.zeros(B, 2, 6, D // 2, dtype=torch.float64), torch.eye(6, dtype=torch.float64), []
    for t in range(L):
        k, b = w.key[:, :, t].unsqueeze(-1), w.strength[:, :, t, None, None]
        a = w.log_decay[:, :, t].exp().unsqueeze(-1)
        S = a * (eye - b * k @ k.transpose(-1, -2)) @ S + b * k @ w.value[:, :, t].unsqueeze(-2)
        outputs.append((w.query[:, :, t].unsqueeze(-2) @ S).squeeze(-2))
    assert torch.allclose(heads_output(mixer, x), torch.stack(outputs, 2), rtol=1e-9, atol=1e-12)


def test_mesanet_with_unit_gates_is_ridge_regression(x):
    from sklearn.linear_model import Ridge

    mixer, x = made(MesaNetMixer, MesaNetConfig(width=D, heads=1, state_size=6), x)
    with torch.no_grad():
        mixer.A_log.fill_(-50)  # no decay
        mixer.strength.weight.zero_()  # every token is written with sigmoid(0) = 1/2
    w, answers = unit(naive(mixer, x)), heads_output(mixer, x)
    penalty = 2 * (F.softplus(mixer.ridge[0]) + 0.25)
    scale = penalty.rsqrt().detach().numpy()
    for t in (5, L - 1):
        k, v, q = (field[0, 0].detach().numpy() for field in (w.key[:, :, : t + 1], w.value[:, :, : t + 1], w.query))
        model = Ridge(alpha=1.0, fit_intercept=False).fit(k * scale, v)
        assert np.allclose(answers[0, 0, t].detach().numpy(), model.predict((q[t] * scale)[None])[0], atol=1e-9)
