"""Noise inside a learner: at the encoder's output or on tokens, the same for all learners of one width, and off by default."""

import dataclasses

import pytest
import torch

from mambacl import learners, tasks
from mambacl.tasks.config import ConfigError

GLYPHS = {"name": "glyphs", "tasks": 3, "shots": 4, "queries": 2, "augment": None}
SIZE = {"layers": 1, "width": 16}


def episode_with(numbers=range(6), **noise):
    return tasks.build(GLYPHS | {"noise": noise}).episodes("meta_test", numbers)


def build(config, dtype=torch.float32):
    torch.manual_seed(0)
    learner = learners.build(config, tasks.build(GLYPHS).spec).to(dtype).eval()
    for name, parameter in learner.named_parameters():
        if name.startswith("head"):
            torch.nn.init.normal_(parameter)
    return learner


def clean(episode):
    return dataclasses.replace(episode, noise=None)


def change(learner, episode):
    """What noise adds to a learner's inputs: (B, T, ...) and (B, M, ...)."""
    with torch.no_grad():
        return [n - c for n, c in zip(learner.inputs(episode), learner.inputs(clean(episode)), strict=True)]


def test_noise_at_the_encoder_is_as_strong_as_asked_and_leaves_label_tokens_alone():
    learner, episode = build({"name": "mamba", **SIZE}), episode_with(range(60), site="encoder_out", strength=2)
    with torch.no_grad():
        spread = learner.inputs(clean(episode))[0][:, :, 0].std(dim=1, correction=0, keepdim=True)
    support, queries = change(learner, episode)
    assert torch.equal(support[:, :, 1], torch.zeros_like(support[:, :, 1]))
    for added in (support[:, :, 0], queries):
        assert float((added / spread).std()) == pytest.approx(2, rel=0.05)


def test_noise_on_tokens_reaches_the_label_tokens():
    support, queries = change(build({"name": "attention", **SIZE}), episode_with(site="token"))
    assert (support[:, :, 0].abs().mean() > 0) & (support[:, :, 1].abs().mean() > 0) & (queries.abs().mean() > 0)
    joined, _ = change(build({"name": "mamba", "tokens": "joined", **SIZE}), episode_with(site="token"))
    assert joined.shape[2] == 1
    assert joined.abs().mean() > 0


@pytest.mark.parametrize("target", ["support", "query"])
@pytest.mark.parametrize("config", [{"name": "mamba", **SIZE}, {"name": "prototypes", "width": 16}, {"name": "ridge"}])
def test_only_the_target_is_disturbed(config, target):
    learner = build(config)
    support, queries = change(learner, episode_with(site="encoder_out", target=target))
    assert bool(support.abs().sum() == 0) == (target == "query")
    assert bool(queries.abs().sum() == 0) == (target == "support")


def test_learners_of_one_width_meet_the_same_noise():
    """In units of the spread of their own features, which is all in which they differ."""
    episode, units = episode_with(site="encoder_out"), []
    for config in ({"name": "mamba", **SIZE}, {"name": "attention", **SIZE}, {"name": "prototypes", "width": 16}):
        learner = build(config)
        with torch.no_grad():
            features = learner.inputs(clean(episode))[0].flatten(2)[:, :, :16]
        units.append(change(learner, episode)[1] / features.std(dim=1, correction=0, keepdim=True))
    assert torch.allclose(units[0], units[1], atol=1e-3)
    assert torch.allclose(units[0], units[2], atol=1e-3)


@pytest.mark.parametrize("site", ["encoder_out", "token"])
@pytest.mark.parametrize("name", ["mamba", "attention"])
def test_answers_depend_on_the_episodes_number_alone(site, name):
    learner, episode = build({"name": name, **SIZE}, torch.float64), episode_with([5, 9], site=site)
    alone = learner(episode_with([9], site=site)).prediction[0]
    assert torch.allclose(learner(episode).prediction[1], alone, atol=1e-9)
    again = learner(episode, layers=(-1,)).prediction
    assert torch.equal(again, learner(episode).prediction)
    assert not torch.allclose(learner(clean(episode)).prediction[1], alone, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "site"),
    [
        ({"name": "mamba", **SIZE}, "token"),
        ({"name": "mamba", "tokens": "joined", **SIZE}, "encoder_out"),
        ({"name": "attention", **SIZE}, "encoder_out"),
        ({"name": "prototypes", "width": 16}, "encoder_out"),
        ({"name": "nearest_mean"}, "encoder_out"),
    ],
)
def test_streaming_has_the_noise_of_what_it_is_given(config, site):
    """Noise belongs to an episode: examples alone have none, what `inputs` makes of an episode has it."""
    learner, episode = build(config, torch.float64), episode_with(site=site, strength=2)
    before = learner.init_state(6)
    support, asked = learner.inputs(episode)
    state = before
    for part in (slice(0, 1), slice(1, 5), slice(5, None)):
        state = learner.absorb(state, support[:, part], episode.support_y[:, part])
    assert torch.allclose(learner.answer(state, asked), learner(episode).prediction, atol=1e-9)
    by_example = learner.observe(before, episode.support_x, episode.support_y)
    alone = learner.predict(by_example, episode.query_x).prediction
    assert torch.allclose(alone, learner(clean(episode)).prediction, atol=1e-9)
    assert not torch.allclose(alone, learner(episode).prediction, atol=1e-3)


def test_noise_of_no_strength_changes_nothing():
    learner, episode = build({"name": "mamba", **SIZE}), episode_with(site="token", strength=0)
    assert torch.equal(learner(episode).prediction, learner(clean(episode)).prediction)


@pytest.mark.parametrize(
    ("name", "site", "line"),
    [
        ("ridge", "token", r"^task\.noise\.site: ridge has no 'token'; allowed: pixel, encoder_out$"),
        ("anml", "encoder_out", r"^task\.noise\.site: Anml has no 'encoder_out'; allowed: pixel$"),
    ],
)
def test_a_learner_without_the_site_says_so(name, site, line):
    with pytest.raises(ConfigError, match=line):
        build({"name": name})(episode_with(site=site))
