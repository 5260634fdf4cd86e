"""Encoders: many images go through in parts, with the answers and gradients of the same images one at a time."""

import pytest
import torch

from mambacl import tasks
from mambacl.learners.encoders.encoders import IMAGES, build_encoder


@pytest.mark.parametrize("number", [1, 2])
def test_many_images_are_the_same_as_each_alone(number, threads):
    """With one thread they go through in parts."""
    threads(number)
    spec = tasks.build({"name": "glyphs", "tasks": 2, "shots": 1, "queries": 1}).spec
    torch.manual_seed(0)
    encoder = build_encoder(None, spec, 8).double()
    images = torch.randint(0, 256, (2 * IMAGES + 3, *spec.shape), dtype=torch.uint8)
    weight = torch.randn(len(images), 8, dtype=torch.float64)

    def results(answers):
        loss = (answers * weight).sum()
        return [answers, *torch.autograd.grad(loss, list(encoder.parameters()))]

    together, alone = results(encoder(images)), results(torch.cat([encoder(image[None]) for image in images]))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)
    assert encoder(images[:0]).shape == (0, 8)
