"""The start by similarity: what fresh learners answer before they have learnt anything."""

import pytest
import torch

from mambacl import learners
from mambacl.learners.similarity import frame, projection
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec

K, S, Q, F, V = 8, 5, 3, 40, 12
SPEC = Spec(input="vector", shape=(F,), output="classification", size=V, digest="")
START = {"start": "similarity", "query_conv": "query", "encoder": {"name": "mlp", "layers": 1}}
SUMS = {
    "mamba": {"name": "mamba", "width": 128, "state_size": 128, "decay": 1e-6, "delta": [0.5, 1]},
    "mamba, narrow keys": {"name": "mamba", "width": 128, "state_size": 48, "decay": 1e-6, "delta": [0.5, 1]},
    "mamba2": {"name": "mamba2", "width": 128, "state_size": 128, "heads": 4, "conv_silu": False, "decay": 1e-6},
    "gated_deltanet": {
        "name": "gated_deltanet",
        "width": 128,
        "state_size": 128,
        "heads": 1,
        "conv_silu": False,
        "decay": 1e-6,
    },
    "kda": {"name": "kda", "width": 128, "state_size": 128, "heads": 1, "conv_silu": False, "decay": 1e-6},
    "mesanet": {"name": "mesanet", "width": 128, "state_size": 128, "heads": 1, "conv_silu": False, "decay": 1e-6},
    "attention": {"name": "attention", "width": 128, "heads": 1},
    "attention, heads": {"name": "attention", "width": 128, "heads": 4},
}


def episodes(count=64, spread=1.0):
    """Classes around means that are spread evenly, so that class means answer most queries."""
    made = torch.Generator().manual_seed(0)
    means = torch.randn(count, K, F, generator=made)
    x = means.repeat_interleave(S, 1) + spread * torch.randn(count, K * S, F, generator=made)
    asked = means.repeat_interleave(Q, 1) + spread * torch.randn(count, K * Q, F, generator=made)
    code = torch.rand(count, V, generator=made).argsort(1)[:, :K]
    task = torch.arange(K).expand(count, -1)
    return Episode(
        support_x=x, support_y=code.repeat_interleave(S, 1), support_task=task.repeat_interleave(S, 1),
        query_x=asked, query_y=code.repeat_interleave(Q, 1), query_task=task.repeat_interleave(Q, 1),
        query_after=torch.full((count, K * Q), K * S - 1), index=torch.arange(count), objective="classification",
    )  # fmt: skip


def accuracy(learner, episode):
    with torch.no_grad():
        return (learner.eval()(episode).prediction.argmax(-1) == episode.query_y).double().mean().item()


@pytest.mark.parametrize("name", SUMS)
def test_a_fresh_learner_answers_nearly_as_well_as_class_means(name):
    episode = episodes()
    means = accuracy(learners.build({"name": "nearest_mean"}, SPEC), episode)
    torch.manual_seed(0)
    fresh = accuracy(learners.build(SUMS[name] | START, SPEC), episode)
    plain = accuracy(learners.build({k: v for k, v in SUMS[name].items() if k != "conv_silu"}, SPEC), episode)
    assert means > 0.95
    assert fresh > 0.6 * means
    assert plain < 0.25, "random weights answer at random"


def test_frames_and_projections_keep_products():
    torch.manual_seed(0)
    assert torch.allclose(frame(5, 9) @ frame(5, 9).T, torch.eye(5))
    many = frame(40, 10)
    assert torch.allclose(many.norm(dim=1), torch.ones(40))
    assert (many @ many.T - torch.eye(40)).abs().max() < 0.95
    x = torch.randn(200, 30)
    assert torch.allclose(x @ projection(40, 30).T @ projection(40, 30) @ x.T, x @ x.T, atol=1e-4)
    narrow = projection(10, 30)
    found = torch.stack([(x @ (m := projection(10, 30)).T @ m @ x.T).diagonal() for _ in range(200)]).mean(0)
    assert narrow.shape == (10, 30)
    assert torch.allclose(found, x.square().sum(1), rtol=0.2)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"name": "transformer", "start": "similarity"},
            "learner: start: transformer does not know 'similarity'; allowed: random",
        ),
        ({"name": "mamba", "start": "similarity"}, "learner: start: 'similarity' needs query_conv: query"),
        (
            {"name": "mamba2", "start": "similarity", "query_conv": "query"},
            "learner: start: 'similarity' needs conv_silu: false",
        ),
        (
            {"name": "mamba", "start": "similarity", "query_conv": "query", "short_conv": 1},
            "learner: start: 'similarity' needs short_conv of at least 2",
        ),
    ],
)
def test_mistakes_are_one_line(config, line):
    with pytest.raises(ConfigError) as caught:
        learners.build(config, SPEC)
    assert str(caught.value) == line


def test_values_have_no_similarity_start():
    spec = SPEC.model_copy(update={"output": "regression"})
    with pytest.raises(ConfigError, match=r"^learner.start: 'similarity' needs label codes, the task is regression"):
        learners.build(SUMS["mamba"] | START, spec)
