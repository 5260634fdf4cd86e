"""The regulariser's values where they are known, and what it must never do."""

import dataclasses
import math

import pytest
import torch

from mambacl import tasks
from mambacl.learners.learner import Association
from mambacl.learners.selectivity import layer_numbers, selectivity_losses, true_mass
from mambacl.learners.selectivity_config import SelectivityConfig

K, S = 5, 3
T = K * S
L = 2 * T


@pytest.fixture(scope="module")
def episode():
    return tasks.build({"name": "sine", "tasks": K, "shots": S, "queries": 1}).episodes("meta_train", range(2))


def association(scores, weights=None):
    position = torch.arange(L)
    return Association(0, scores, weights, position // 2, position % 2 == 1)


def right_tokens(episode):
    task = episode.support_task[:, torch.arange(L) // 2]
    return episode.query_task.unsqueeze(-1) == task.unsqueeze(1)


@pytest.mark.parametrize("loss", ["kl", "mass"])
@pytest.mark.parametrize("tokens", ["label", "input", "both"])
def test_flat_scores_cost_log_k_and_perfect_rows_nothing(episode, loss, tokens):
    config = SelectivityConfig(loss=loss, tokens=tokens)
    flat, counts = selectivity_losses(association(torch.zeros(2, 1, K, L)), episode, config)
    assert counts.all()
    assert torch.allclose(flat, torch.full_like(flat, math.log(K)))
    perfect = torch.where(right_tokens(episode), 0.0, -100.0).unsqueeze(1)
    assert selectivity_losses(association(perfect), episode, config)[0].abs().max() < 1e-6


def test_kl_is_never_below_mass_and_asks_for_an_even_spread(episode):
    scores = torch.randn(2, 4, K, L, generator=torch.Generator().manual_seed(0))
    kl, mass = (selectivity_losses(association(scores), episode, SelectivityConfig(loss=l))[0] for l in ("kl", "mass"))
    assert (kl >= mass - 1e-6).all()
    one_shot = torch.where(right_tokens(episode), 0.0, -100.0)
    one_shot[..., 1::6] += 50  # all mass on the first shot's label
    kl, mass = (
        selectivity_losses(association(one_shot.unsqueeze(1)), episode, SelectivityConfig(loss=l))[0]
        for l in ("kl", "mass")
    )
    assert mass.max() < 1e-6
    assert kl.min() > 10


def test_tokens_that_take_no_part_do_not_matter(episode):
    scores = torch.randn(2, 1, K, L, generator=torch.Generator().manual_seed(0))
    disturbed = scores.clone()
    disturbed[..., ::2] += 100
    for loss in ("kl", "mass"):
        config = SelectivityConfig(loss=loss, tokens="label")
        assert torch.equal(*(selectivity_losses(association(s), episode, config)[0] for s in (scores, disturbed)))


def test_queries_without_a_support_example_do_not_count(episode):
    """An open-set query has no right tokens: it adds neither loss nor count, and no NaN reaches a gradient."""
    stranger = dataclasses.replace(episode, query_task=episode.query_task.clone())
    stranger.query_task[:, 0] = K + 3
    for loss in ("kl", "mass"):
        scores = torch.randn(2, 1, K, L, requires_grad=True)
        losses, counts = selectivity_losses(association(scores), stranger, SelectivityConfig(loss=loss))
        assert counts.tolist() == [[False] + [True] * (K - 1)] * 2
        assert (losses[:, 0] == 0).all()
        losses.sum().backward()
        assert torch.isfinite(scores.grad).all()
        assert (scores.grad[:, :, 0] == 0).all()


def test_tokens_that_a_query_cannot_see_are_left_out(episode):
    scores = torch.zeros(2, 1, K, L)
    scores[..., 2 * 2 * S :] = -torch.inf  # asked after two tasks
    losses, counts = selectivity_losses(association(scores), episode, SelectivityConfig())
    assert counts.tolist() == [[True, True, False, False, False]] * 2
    assert torch.allclose(losses[:, :2], torch.full((2, 2), math.log(2)))


def test_share_of_heads(episode):
    scores = torch.zeros(2, 4, K, L)
    scores[:, 2:] = torch.where(right_tokens(episode), 0.0, -100.0).unsqueeze(1)
    half = selectivity_losses(association(scores), episode, SelectivityConfig(heads=0.5))[0]
    every = selectivity_losses(association(scores), episode, SelectivityConfig())[0]
    assert torch.allclose(half, torch.full_like(half, math.log(K)))
    assert torch.allclose(every, half / 2)


def test_true_mass_is_the_share_of_weight_on_the_right_task(episode):
    weights = torch.full((2, K, L), 1 / L)
    assert torch.allclose(true_mass(association(None, weights), episode), torch.tensor(1 / K))
    with pytest.raises(ValueError, match="exact=True"):
        true_mass(association(None), episode)


def test_layers_and_schedule():
    assert layer_numbers(SelectivityConfig(), 3) == (2,)
    assert layer_numbers(SelectivityConfig(layers="all"), 3) == (0, 1, 2)
    assert layer_numbers(SelectivityConfig(layers=[0, -1]), 3) == (0, -1)
    config = SelectivityConfig(from_step=5, until_step=7)
    assert [config.active(step) for step in range(4, 8)] == [False, True, True, False]
    assert not SelectivityConfig(loss="none").active(5)
    assert not SelectivityConfig(weight=0).active(5)


@pytest.mark.parametrize("loss", ["kl", "mass"])
def test_linear_shares_are_magnitudes_divided_by_their_sum(episode, loss):
    """The mixer's own normalisation counts unless the config names another; signs do not matter to a linear row."""
    right = right_tokens(episode)
    weights = torch.where(right, 3.0, 1.0).unsqueeze(1)
    own = dataclasses.replace(association(weights), normalisation="linear")
    label = torch.arange(L) % 2 == 1
    share = (weights[:, 0] * (right & label)).sum(-1) / (weights[:, 0] * label).sum(-1)
    asked = SelectivityConfig(loss=loss, normalisation="linear")
    for found in (own, dataclasses.replace(own, scores=-weights)):
        losses, _ = selectivity_losses(found, episode, SelectivityConfig(loss=loss))
        assert torch.allclose(losses, -share.log(), atol=1e-6)  # even on the right tokens: both losses are -log mass
    assert torch.equal(losses, selectivity_losses(association(-weights), episode, asked)[0])
    softmax = selectivity_losses(own, episode, SelectivityConfig(loss=loss, normalisation="softmax"))[0]
    assert not torch.allclose(softmax, losses)


def test_linear_shares_have_finite_gradients_where_nothing_is_read(episode):
    scores = torch.zeros(2, 1, K, L)
    scores[..., 2 * 2 * S :] = -torch.inf
    scores.requires_grad_()
    config = SelectivityConfig(normalisation="linear")
    selectivity_losses(association(scores), episode, config)[0].sum().backward()
    assert torch.isfinite(scores.grad).all()
