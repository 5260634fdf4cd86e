"""Losses and scores where they are known."""

import dataclasses
import math

import torch

from mambacl import tasks
from mambacl.learners.objective import losses, scores, seen_only


def test_codes_that_the_stream_has_not_shown_can_be_left_out():
    episode = tasks.build({"name": "glyphs", "tasks": 3, "shots": 1, "vocabulary": 8}).episodes("meta_test", range(5))
    logits = torch.zeros(5, 3, 8)
    assert torch.allclose(losses(logits, episode), torch.tensor(math.log(8)))
    assert torch.allclose(losses(logits, episode, "seen"), torch.tensor(math.log(3)))
    seen = torch.isfinite(seen_only(logits, episode))
    assert (seen.sum(-1) == 3).all()
    right = torch.nn.functional.one_hot(episode.query_y, 8).float()
    unseen = 2.0 * ~seen  # the whole vocabulary is misled, the seen codes are not
    assert scores(right + unseen, episode).sum() == 0
    assert (scores(right + unseen, episode, "seen") == 1).all()


def test_regression_and_angle():
    episode = tasks.build({"name": "sine", "tasks": 2, "shots": 1}).episodes("meta_test", [0])
    assert torch.allclose(losses(episode.query_y, episode), torch.zeros(1, 2))
    assert torch.allclose(scores(torch.zeros_like(episode.query_y), episode), episode.query_y.square().mean(-1))
    target = torch.tensor([[[1.0, 0.0]] * 4])
    angle = dataclasses.replace(episode, query_y=target, query_task=torch.zeros(1, 4), objective="angle")
    prediction = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.05, 0.0]]])
    assert torch.allclose(losses(prediction, angle), torch.tensor([[0.0, 1.0, 2.0, 0.5]]))
