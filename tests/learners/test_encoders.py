"""Encoders: many images go through some at a time, with the answers and gradients of each alone."""

import pytest
import torch

from mambacl import tasks
from mambacl.learners.encoders.config import CnnConfig
from mambacl.learners.encoders.encoders import build_encoder
from mambacl.tasks.config import ConfigError


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("channels", "first_stride"), [((16, 32, 64, 128), 2), ((8, 16, 48), 2), ((16, 24, 32), 2), ((16, 32), 1)]
)
def test_many_images_are_the_same_as_each_alone(number, channels, first_stride, threads):
    """Each alone is too few for a kernel, and channels that fill no vector are none for it."""
    threads(1)
    spec = tasks.build({"name": "glyphs", "tasks": 2, "shots": 1, "queries": 1}).spec
    torch.manual_seed(0)
    encoder = build_encoder(CnnConfig(channels=channels, first_stride=first_stride), spec, 8).double()
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


@pytest.mark.parametrize(("first_stride", "flat"), [(1, 32 * 8 * 8), (2, 32 * 4 * 4)])
def test_strides_are_those_of_torch(first_stride, flat):
    spec = tasks.build({"name": "glyphs", "tasks": 2, "shots": 1, "queries": 1}).spec
    encoder = build_encoder(CnnConfig(channels=(16, 32, 32), first_stride=first_stride), spec, 8).double()
    assert encoder.project.in_features == flat
    images = torch.randint(0, 256, (50, *spec.shape), dtype=torch.uint8)
    expected = encoder.norm(encoder.project(encoder.convolutions(images.double() / 127.5 - 1).flatten(1)))
    torch.testing.assert_close(encoder(images), expected)


def test_images_may_be_as_small_as_their_halvings():
    spec = tasks.build({"name": "glyphs", "tasks": 2, "shots": 1, "queries": 1}).spec
    small = spec.model_copy(update={"shape": (1, 8, 16)})
    five = (16, 16, 16, 16, 16)
    assert build_encoder(CnnConfig(channels=five[:4], first_stride=1), small, 8).project.in_features == 16 * 1 * 2
    line = "learner.encoder.channels: 4 halvings need images of at least 16 pixels, got 8 x 16"
    with pytest.raises(ConfigError, match=line):
        build_encoder(CnnConfig(channels=five, first_stride=1), small, 8)
