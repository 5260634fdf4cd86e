"""Every learner on angles and on halves of images: the shapes of the contract, no query sees another, bounded answers."""

import dataclasses
import functools

import pytest
import torch

from mambacl import learners, tasks
from mambacl.learners.objective import losses
from mambacl.learners.registry import CONFIGS
from mambacl.tasks.config import ConfigError

SMALL = {"layers": 2, "width": 16, "heads": 2, "state_size": 4, "hidden": 8, "features": 40, "steps": 3}
CLASSES_ONLY = {"nearest_mean", "slda", "prototypes", "gemcl"}
LINEAR = {"alpaca", "knn", "ridge", "random_ridge", "online_sgd", "joint_sgd"}
"""Answers in closed form or of a linear map: already values, and not squashed."""


@functools.cache
def source(target):
    family = tasks.build({"name": "glyphs", "target": target, "tasks": 3, "shots": 2, "queries": 2})
    return family.spec, family.episodes("meta_train", range(2))


def build(name, target):
    torch.manual_seed(0)
    spec, episode = source(target)
    fields = CONFIGS[name].model_fields
    learner = learners.build({"name": name} | {key: SMALL[key] for key in SMALL if key in fields}, spec).double().eval()
    for parameter_name, parameter in learner.named_parameters():
        if parameter_name.startswith("head"):  # fresh heads are zero, and would hide what is behind them
            torch.nn.init.normal_(parameter)
    return learner, episode


@pytest.mark.parametrize("target", ["rotation", "completion"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_learner_answers_or_says_that_it_cannot(name, target):
    spec, episode = source(target)
    if name in CLASSES_ONLY:
        with pytest.raises(ConfigError, match=r"^learner\.name: .* needs classification, the task is"):
            build(name, target)
        return
    learner, episode = build(name, target)
    answers = learner(episode).prediction
    assert answers.shape == (2, 6, spec.size)
    assert losses(answers, episode).shape == (2, 6)
    assert torch.isfinite(answers).all()
    changed = episode.query_x.clone()
    changed[:, 1:] = 255 - changed[:, 1:]
    others = learner(dataclasses.replace(episode, query_x=changed)).prediction
    assert torch.allclose(others[:, 0], answers[:, 0], atol=1e-9)
    assert not torch.allclose(others[:, 1], answers[:, 1])
    if target == "completion" and name not in LINEAR:
        assert answers.abs().max() <= 1
