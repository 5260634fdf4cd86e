"""Preparation of features: what it does to them, on whose images it is fitted, and that it can be kept."""

import pytest
import torch

from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.images_config import ImagesConfig, PrepareConfig
from mambacl.tasks.preparation import Preparation
from tests.tasks.test_vectors import ENCODED, family


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(500, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 5


def covariance(x):
    return (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize(
    ("axes", "dimensions"), [("same", None), ("standard", None), ("pca", 5), ("whitened", 5), ("zca", None)]
)
def test_prepared_features_are_what_the_axes_say(x, unit, axes, dimensions):
    found = Preparation.fit(x, PrepareConfig(unit=unit, axes=axes, dimensions=dimensions))
    y = found(x)
    assert y.shape == (500, dimensions or 12)
    assert torch.allclose(y.mean(0), torch.zeros(y.shape[1]), atol=1e-4)
    if axes == "standard":
        assert torch.allclose(covariance(y).diagonal(), torch.ones(12), rtol=1e-3)
    if axes in ("whitened", "zca"):
        assert torch.allclose(covariance(y), torch.eye(y.shape[1]), atol=1e-3)
    if axes == "zca":
        assert torch.allclose(found.matrix, found.matrix.T, atol=1e-5)
    if axes == "pca":
        variance = covariance(y)
        assert torch.allclose(variance, variance.diagonal().diag(), atol=1e-2)
        assert (variance.diagonal().diff() < 0).all()
    if unit and axes == "same":
        assert torch.allclose((y + found.middle).norm(dim=1), torch.full((500,), 12**0.5))


def test_without_centring_nothing_is_taken_away(x):
    assert torch.equal(Preparation.fit(x, PrepareConfig(center=False))(x), x)


def prepared(**prepare):
    plain = family()
    return ImageFamily(ImagesConfig(**ENCODED, prepare=prepare), plain.bank), plain


def test_it_is_fitted_on_meta_train_alone():
    made, plain = prepared(axes="whitened", dimensions=6)
    own = torch.from_numpy(plain.pools["meta_train"].image)
    assert made.preparation.digest == Preparation.fit(plain.bank.images[own], made.config.prepare).digest
    plain.bank.images[torch.from_numpy(plain.pools["meta_test"].image)] = 1e3
    assert ImageFamily(made.config, plain.bank).preparation.digest == made.preparation.digest


def test_every_split_is_prepared_and_the_digest_tells():
    made, plain = prepared(axes="whitened", dimensions=6)
    for split in ("meta_train", "meta_val", "meta_test"):
        expected = made.preparation(plain.episodes(split, [1]).support_x)
        assert torch.allclose(made.episodes(split, [1]).support_x, expected, atol=1e-5)
    assert made.spec.shape == (6,)
    assert len({made.spec.digest, plain.spec.digest, prepared(axes="pca", dimensions=6)[0].spec.digest}) == 3


def test_it_can_be_kept_and_used_on_other_features(tmp_path):
    made, _ = prepared(axes="zca")
    made.preparation.save(tmp_path / "p.safetensors")
    again, _ = prepared(axes="zca", fitted=str(tmp_path / "p.safetensors"))
    assert torch.equal(again.episodes("meta_val", [0]).query_x, made.episodes("meta_val", [0]).query_x)


@pytest.mark.parametrize(
    ("prepare", "line"),
    [
        (
            {"axes": "same", "dimensions": 3},
            "task.prepare: dimensions: axes 'same' keeps all; needs pca, whitened or zca",
        ),
        (
            {"axes": "pca", "dimensions": 31},
            r"task.prepare.dimensions: must be at most 30, of \d+ vectors of 30 numbers; got 31",
        ),
        ({"fitted": "nowhere.safetensors"}, "task.prepare.fitted: nowhere.safetensors is no preparation: "),
        ({"axes": "zcaa"}, "task.prepare.axes: must be "),
    ],
)
def test_mistakes_are_one_line(prepare, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        ImageFamily(parse(ImagesConfig, ENCODED | {"prepare": prepare}, "task"), family().bank)


def test_one_for_other_features_is_refused(tmp_path, x):
    Preparation.fit(x, PrepareConfig()).save(tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match=r"^task.prepare.fitted: is for 12 numbers, features have 30$"):
        prepared(fitted=str(tmp_path / "p.safetensors"))
