"""Mixture of experts: routing, balance, and as many active parameters as a dense part."""

import pytest
import torch

from mambacl import learners, tasks
from mambacl.learners.mixture import Mixture, balance_loss
from mambacl.learners.sequence_config import ExpertsConfig
from mambacl.tasks.config import ConfigError

D, F = 6, 16


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    return Mixture(D, F, ExpertsConfig(count=4, active=2)).double()


def test_a_token_gets_its_best_experts_weighted_by_their_shares(mixture):
    x = torch.randn(2, 5, D, dtype=torch.float64)
    y, routing = mixture(x)
    for b in range(2):
        for t in range(5):
            shares = (mixture.router.weight @ x[b, t]).softmax(0)
            best = shares.argsort(descending=True)[:2]
            expected = torch.zeros(D, dtype=torch.float64)
            for e in best:
                hidden = torch.nn.functional.gelu(x[b, t] @ mixture.up[e] + mixture.up_bias[e])
                expected += shares[e] / shares[best].sum() * (hidden @ mixture.down[e] + mixture.down_bias[e])
            assert torch.allclose(y[b, t], expected)
            assert routing["chosen"][b, t].nonzero().flatten().tolist() == sorted(best.tolist())


def test_the_balance_loss_is_one_when_even_and_more_when_not():
    even, one = torch.full((3, 8, 4), 0.25), torch.zeros(3, 8, 4)
    spread = torch.eye(4).repeat(2, 1).expand(3, 8, 4)
    one[..., 0] = 1
    assert torch.allclose(balance_loss(even, spread), torch.ones(3))
    assert torch.allclose(balance_loss(one, one), torch.full((3,), 4.0))


def test_active_parameters_are_those_of_a_dense_part(mixture):
    dense = 2 * D * F + F + 2 * D  # one more bias of the way back: each active expert has its own
    total = sum(p.numel() for p in mixture.parameters()) - mixture.router.weight.numel()
    assert total - mixture.idle_parameters == dense


def test_a_learner_says_where_queries_went_and_how_even_it_was():
    family = tasks.build({"name": "sine", "tasks": 3, "shots": 2, "queries": 2})
    config = {"name": "mamba", "layers": 2, "width": 8, "state_size": 4, "feed_forward": 2, "experts": {"count": 4}}
    output = learners.build(config, family.spec)(family.episodes("meta_train", range(5)))
    assert output.balance.shape == (5,)
    assert (output.balance >= 2 - 1e-5).all()  # of two layers, each at least 1 up to ties
    assert [use.shape for use in output.expert_use] == [(5, 6, 4)] * 2
    assert (output.expert_use[0].sum(-1) == 2).all()
    with pytest.raises(ConfigError, match="set feed_forward above 0"):
        learners.build(config | {"feed_forward": 0}, family.spec)
    with pytest.raises(ConfigError, match="active = 9 must be at most count = 4"):
        learners.build(config | {"experts": {"count": 4, "active": 9}}, family.spec)
