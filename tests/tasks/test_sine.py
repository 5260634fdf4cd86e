"""Sine episodes are those of Lee et al. (2023): predictors that know more and more of how they are made come down to errors
that were computed once, elsewhere, from the formulas. A family that differs, or shows a query's answer, misses them."""

import math

import numpy as np
import pytest
import torch

from mambacl import learners, tasks

NOISE = 0.1
TIME = np.linspace(0, 10, 50)
EPISODES = 200


@pytest.fixture(scope="module", params=[20, 100])
def episode(request):
    family = tasks.build({"name": "sine", "tasks": request.param, "shots": 5, "queries": 1})
    return family.spec, family.episodes("meta_test", range(EPISODES))


def check(errors, expected, given_error=0.0):
    """errors: mean squared error of each query (B, M). They hang together within an episode, which is the unit."""
    per_episode = np.asarray(errors).mean(1)
    standard_error = per_episode.std(ddof=1) / math.sqrt(len(per_episode))
    assert abs(per_episode.mean() - expected) < 4 * math.hypot(standard_error, given_error), per_episode.mean()


def squared(prediction, episode):
    return ((np.asarray(prediction) - episode.query_y.numpy()) ** 2).mean(-1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, {20: 13 / 24, 100: 13 / 24}),
        ({"name": "ridge", "penalty": 1 / 50}, {20: 0.086, 100: 0.43}),
        ({"name": "knn"}, {20: 0.021, 100: 0.045}),
    ],
    ids=["zero", "ridge", "nearest neighbour"],
)
def test_references_have_the_errors_known_for_them(episode, config, expected):
    spec, episode = episode
    with torch.no_grad():
        prediction = learners.build(config, spec)(episode).prediction if config else 0 * episode.query_y
    # Given to two digits: half of the last one is its error.
    figure = expected[episode.tasks]
    check(
        squared(prediction, episode),
        figure,
        given_error=0 if config is None else 0.5 * 10 ** (math.floor(math.log10(figure)) - 1),
    )


def test_predictors_that_know_how_episodes_are_made_come_down_to_the_floor(episode):
    _, episode = episode
    guessed, told = [], []
    for b in range(EPISODES):
        shapes = [task_shapes(episode, b, k) for k in range(episode.tasks)]
        x_shape, y_shape = (np.stack(part) for part in zip(*shapes, strict=True))
        x = episode.query_x[b].numpy().astype(float)
        amplitude = np.clip(x @ x_shape.T / (x_shape**2).sum(1), 0.5, 1.5)  # (M, K)
        residual = ((x[:, None] - amplitude[..., None] * x_shape) ** 2).sum(-1)
        weight = np.exp(-(residual - residual.min(1, keepdims=True)) / (2 * NOISE**2))
        weight /= weight.sum(1, keepdims=True)
        guessed.append((weight * amplitude) @ y_shape)
        own = episode.query_task[b].numpy()
        told.append(amplitude[np.arange(len(own)), own][:, None] * y_shape[own])
    bayes = {20: (5.2e-4, 2e-4), 100: (1.8e-3, 2e-4)}[episode.tasks]
    check(squared(guessed, episode), *bayes)
    # The phase of x is itself estimated from five noisy shots, which adds about as much as it takes a sixth of the floor.
    errors = squared(told, episode)
    check(errors, 1.96e-4, given_error=2e-5)
    assert errors.mean() > 1.9e-4, "below the floor of a query's own noise there is only a leak"


def task_shapes(episode, b, k):
    """x and y of a task at amplitude 1, from its support: y has no noise, so its frequency and phase are exact."""
    mine = episode.support_task[b] == k
    x, y = (part[b][mine].numpy().astype(float) for part in (episode.support_x, episode.support_y))
    # Of any sine, the two neighbours of a point add up to 2 cos(step) times the point.
    middle, around = y[:, 1:-1], y[:, 2:] + y[:, :-2]
    step = math.acos((middle * around).sum() / (2 * (middle**2).sum()))
    angle = step * np.arange(len(TIME))
    basis = np.stack([np.sin(angle), np.cos(angle)], 1)
    of_y = np.linalg.lstsq(basis, y.T, rcond=None)[0]  # (2, shots)
    amplitude = np.linalg.norm(of_y, axis=0)
    of_x = np.linalg.lstsq(basis, x.T, rcond=None)[0]
    direction = of_x @ amplitude
    return basis @ (direction / np.linalg.norm(direction)), basis @ (of_y[:, 0] / amplitude[0])
