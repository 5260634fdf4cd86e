"""Encoders: many images go through some at a time, with the answers and gradients of each alone."""

import pytest
import torch

from mambacl import tasks
from mambacl.learners.encoders.config import CnnConfig
from mambacl.learners.encoders.encoders import build_encoder


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("channels", [(16, 32, 64, 128), (8, 16, 48), (16, 24, 32)])
def test_many_images_are_the_same_as_each_alone(number, channels, threads):
    """Each alone is too few for a kernel, and channels that fill no vector are none for it."""
    threads(1)
    spec = tasks.build({"name": "glyphs", "tasks": 2, "shots": 1, "queries": 1}).spec
    torch.manual_seed(0)
    encoder = build_encoder(CnnConfig(channels=channels), spec, 8).double()
    images = torch.randint(0, 256, (149, *spec.shape), dtype=torch.uint8)
    weight = torch.randn(len(images), 8, dtype=torch.float64)

    def results(answers):
        loss = (answers * weight).sum()
        return [answers, *torch.autograd.grad(loss, list(encoder.parameters()))]

    alone = results(torch.cat([encoder(image[None]) for image in images]))
    threads(number)
    together = results(encoder(images))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)
    assert encoder(images[:0]).shape == (0, 8)
