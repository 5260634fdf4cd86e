"""Augmentation of features: what it keeps, what it changes, and that it hangs on the number of the episode alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl.tasks.bank import ImageBank
from mambacl.tasks.config import ConfigError
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.images_config import ImagesConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.randomness import generator
from mambacl.tasks.vectors import mixed, turned

CLASSES, IMAGES, D = 40, 8, 30
ENCODED = {"path": "features", "encoder": {"frozen": "efficientnet_lite0"}, "tasks": 3, "shots": 3, "queries": 2}


def family(**augment):
    """Of features whose first number is their class."""
    x = np.random.default_rng(0).standard_normal((CLASSES * IMAGES, D)).astype(np.float32)
    label = np.arange(CLASSES).repeat(IMAGES)
    x[:, 0] = label
    labels, order = Labels.of(label, None)
    bank = ImageBank.with_labels(torch.from_numpy(x[order]), labels, "features")
    return ImageFamily(ImagesConfig(**ENCODED, augment_vectors=augment or None), bank)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10**6))
def test_another_basis_keeps_lengths_and_angles(dimensions, number):
    x = torch.randn(9, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
    y = turned(x, generator(0, "test", number))
    assert torch.allclose(y @ y.T, x @ x.T, atol=1e-9)


def test_every_new_dimension_holds_a_part_of_each_old_one():
    matrix = turned(torch.eye(512, dtype=torch.float64), generator(0, "test"))
    assert matrix.abs().max() < 0.35, "a full random rotation has a largest entry of about 0.23"
    assert (matrix.abs() > 1e-4).double().mean() > 0.95


@given(st.floats(0, 0.5))
def test_a_mixture_of_independent_vectors_is_as_long_as_they_are(share):
    x, other = torch.randn(2, 1, 4000, 16, generator=torch.Generator().manual_seed(0))
    y = mixed(x, other, torch.full((1, 4000), share))
    assert y.std() == pytest.approx(1, abs=0.02)


def test_bases_differ_between_episodes_and_not_within():
    plain, augmented = (family(**changes).episodes("meta_train", [0, 1]) for changes in ({}, {"mix": 0}))
    before = torch.cat([plain.support_x, plain.query_x], 1).double()
    after = torch.cat([augmented.support_x, augmented.query_x], 1).double()
    assert torch.allclose(before @ before.mT, after @ after.mT, rtol=1e-4, atol=1e-2)
    bases = torch.linalg.lstsq(before, after, driver="gelsd").solution
    assert not torch.allclose(bases[0], bases[1], atol=0.1)


def test_a_class_is_mixed_with_one_other():
    """By the same share for all its examples, those that are asked for among them."""
    plain, mix = (family(**changes).episodes("meta_train", range(20)) for changes in ({}, {"bases": False}))
    assert torch.equal(mix.support_y, plain.support_y)
    support = (mix.support_x - plain.support_x)[..., 0].unflatten(1, (3, 3))
    asked = (mix.query_x - plain.query_x)[..., 0].unflatten(1, (3, 2))
    assert torch.allclose(support, support[..., :1].expand_as(support), atol=1e-4)
    assert torch.allclose(asked, support[..., :1].expand_as(asked), atol=1e-4)
    assert (support[..., 0].abs() > 1e-3).double().mean() > 0.9


def test_dimensions_left_out_are_those_of_an_episode():
    episode = family(bases=False, mix=0, drop=0.5).episodes("meta_train", range(8))
    zero = episode.support_x[..., 2:] == 0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))
    assert torch.equal(zero[:, :6], episode.query_x[..., 2:] == 0)
    assert 0.35 < zero.double().mean() < 0.65
    assert not torch.equal(zero[0], zero[1])


def test_noise_is_relative_to_the_dimensions():
    plain, noisy = (
        family(**changes).episodes("meta_train", range(8)) for changes in ({}, {"bases": False, "mix": 0, "noise": 0.1})
    )
    change = (noisy.support_x - plain.support_x).std((0, 1))
    assert torch.allclose(change, 0.1 * plain.support_x.std(1, correction=0).mean(0), rtol=0.4)


def test_only_meta_train_is_augmented_and_only_by_number():
    augmented = family(bases=True, mix=0.5, drop=0.1, noise=0.1)
    for split in ("meta_val", "meta_confirm", "meta_test"):
        assert torch.equal(augmented.episodes(split, [3]).support_x, family().episodes(split, [3]).support_x)
    together, alone = augmented.episodes("meta_train", [5, 3, 9]), augmented.episodes("meta_train", [3])
    assert torch.equal(together.support_x[1], alone.support_x[0])
    assert torch.equal(
        augmented.unaugmented().episodes("meta_train", [3]).support_x, family().episodes("meta_train", [3]).support_x
    )


def test_mistakes_are_one_line():
    with pytest.raises(ConfigError, match=r"^task.augment_vectors.mix: needs two classes, meta_train has one$"):
        ImageFamily(ImagesConfig(**(ENCODED | {"tasks": 1, "train_classes": 1}), augment_vectors={}), family().bank)
    with pytest.raises(ValueError, match=r"augment_vectors: is of an encoder's features; set encoder, or leave it out"):
        ImagesConfig(path="x.npz", augment_vectors={})
