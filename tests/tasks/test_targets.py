"""Rotation and completion: labels say what was done to the images, and anchors are where they were measured."""

import numpy as np
import pytest
import torch

from mambacl import learners, tasks
from mambacl.learners.objective import losses, scores
from mambacl.tasks.pools import Pool

SIZES = {"tasks": 3, "shots": 2, "queries": 2, "augment": None}


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """12 classes of 6 equal images: a bar from the centre to the right, as broad as the class's number."""
    images = np.zeros((12, 6, 32, 32), np.uint8)
    for c in range(12):
        images[c, :, 14 - c // 4 : 18 + c // 4, 16:30] = 255
    path = tmp_path_factory.mktemp("bars") / "bars.npz"
    np.savez(path, images=images.reshape(-1, 32, 32), label=np.repeat(np.arange(12), 6))
    return {"name": "images", "path": str(path), "tasks": 2, "shots": 3, "queries": 2, "seed": 1}


def direction(images):
    """Unit vectors (..., 2) from the centre of images (..., 1, 32, 32) to that of their ink; y points up."""
    ink = images.squeeze(-3).double()
    place = torch.arange(32) - 15.5
    towards = torch.stack([(ink.sum(-2) * place).sum(-1), -(ink.sum(-1) * place).sum(-1)], -1)
    return towards / towards.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("augment", [None, {"turns": True, "degrees": 90, "shift": 0, "scale": 0.1}])
def test_the_label_is_the_angle_by_which_the_image_was_turned(bars, augment):
    """Augmentation, too, turns nothing beside it."""
    episode = tasks.build(bars | {"target": "rotation", "augment": augment}).episodes("meta_train", range(50))
    for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
        assert y.shape == (*x.shape[:2], 2)
        assert torch.allclose(direction(x).float(), y, atol=0.02)
    angles = torch.atan2(*episode.support_y.unbind(-1)).flatten()
    assert angles.histc(8, -np.pi, np.pi).min() > 15, "all directions occur"


def test_a_hidden_offset_turns_the_labels_of_a_task_alike(bars):
    plain, offset = (
        tasks.build(bars | {"target": "rotation", "augment": None, "offset_mode": mode}) for mode in ("none", "label")
    )
    a, b = (family.episodes("meta_test", range(4)) for family in (plain, offset))
    assert torch.equal(a.support_x, b.support_x), "images do not show it"
    angle = [torch.atan2(e.support_y[..., 1], e.support_y[..., 0]).view(4, 2, 3) for e in (a, b)]
    turn = (angle[1] - angle[0]).remainder(2 * np.pi)
    assert torch.allclose(turn, turn[:, :, :1].expand_as(turn), atol=1e-4)
    assert len({round(float(t), 3) for t in turn[:, :, 0].flatten()}) == 8, "every task has its own"
    assert plain.spec.digest != offset.spec.digest


def test_the_halves_of_a_completion_are_the_image():
    classes, halves = (tasks.build({"name": "glyphs", **SIZES, "target": target}) for target in ("class", "completion"))
    whole, cut = (family.episodes("meta_test", range(5)) for family in (classes, halves))
    assert (halves.spec.shape, halves.spec.size, halves.spec.bounded) == ((1, 16, 32), 512, True)
    for x, upper, lower in (
        (whole.support_x, cut.support_x, cut.support_y),
        (whole.query_x, cut.query_x, cut.query_y),
    ):
        assert torch.equal(x[..., :16, :], upper)
        assert torch.allclose(x[..., 16:, :].flatten(2) / 127.5 - 1, lower)
    assert classes.spec.digest != halves.spec.digest


def test_an_odd_height_and_colours_are_cut_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 9, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, label=np.repeat(np.arange(15), 4))
    config = {"name": "images", "path": str(tmp_path / "a.npz"), "target": "completion", "tasks": 2, "shots": 1}
    family = tasks.build(config)
    assert family.spec.shape == (3, 4, 8)
    assert family.episodes("meta_val", [0]).query_y.shape == (1, 2, 3 * 5 * 8)


def test_lengths_of_regression_are_not_bound_by_label_codes():
    family = tasks.build({"name": "glyphs", "target": "rotation", "tasks": 3, "augment": None})
    assert family.varied(tasks=50).episodes("meta_test", [0]).support_y.shape == (1, 250, 2)
    short, long = (family.varied(tasks=k).episodes("meta_test", [3]) for k in (2, 4))
    assert torch.equal(short.support_y, long.support_y[:, :10]), "longer episodes begin with the shorter ones"


def test_an_offset_without_an_angle_is_refused():
    with pytest.raises(ValueError, match=r"^task: offset_mode: 'label' needs target = rotation, got class$"):
        tasks.build({"name": "glyphs", "offset_mode": "label"})


@pytest.fixture(scope="module")
def omniglot(data, tmp_path_factory):
    """The 242 Omniglot characters of the two small sets, as families of 20 x 5 that draw from all of them."""
    path = tmp_path_factory.mktemp("omniglot") / "small.npz"
    with np.load(data / "omniglot_background_32.npz", allow_pickle=False) as file:
        chosen = np.flatnonzero(file["class_in_small1"] | file["class_in_small2"])
        keep = np.isin(file["label"], chosen)
        np.savez(path, images=file["images"][keep], label=file["label"][keep])
    assert len(chosen) == 242

    def build(target):
        family = tasks.build({"name": "images", "path": str(path), "target": target, "augment": None, "queries": 5})
        bank = family.bank
        everything = Pool(
            np.arange(242), np.arange(len(bank.images)), bank.start, bank.count, tuple(bank.classes.tolist()), ()
        )
        family.pools = dict.fromkeys(family.pools, everything)
        return family

    return build


def anchor(family, config, episodes=100):
    learner = learners.build(config, family.spec)
    return sum(
        float(scores(learner(e).prediction, e).mean()) / (episodes // 10)
        for e in (family.episodes("meta_test", range(i, i + 10)) for i in range(0, episodes, 10))
    )


def test_anchors_of_omniglot_classes(omniglot):
    """20 x 5 on raw pixels: 44.6 % for the nearest mean and 44.5 % for ridge, standard error 0.6 points."""
    family = omniglot("class")
    assert anchor(family, {"name": "nearest_mean"}) == pytest.approx(0.446, abs=0.015)
    assert anchor(family, {"name": "ridge", "penalty": 1000 / 1024}) == pytest.approx(0.445, abs=0.015)


def test_anchors_of_omniglot_completion(omniglot):
    """Mean squared errors, standard error 0.001 to 0.002: a learner must be clearly below 0.14 to have learnt anything."""
    family = omniglot("completion")
    episode = family.episodes("meta_test", range(100))
    answer = episode.query_y
    assert float(answer.square().mean()) == pytest.approx(0.921, abs=0.005), "zeros"
    assert float((answer + 1).square().mean()) == pytest.approx(0.191, abs=0.006), "no ink"
    mean = episode.support_y.mean(1, keepdim=True).expand_as(answer)
    assert float(losses(mean, episode).mean()) == pytest.approx(0.147, abs=0.004), "mean of all"
    of_class = episode.support_y.unflatten(1, (20, 5)).mean(2).repeat_interleave(5, dim=1)
    assert float(losses(of_class, episode).mean()) == pytest.approx(0.155, abs=0.004), "mean of the class"
    assert anchor(family, {"name": "knn"}) == pytest.approx(0.245, abs=0.006)
    assert anchor(family, {"name": "ridge", "penalty": 1000 / 512}) == pytest.approx(0.143, abs=0.003)
    assert anchor(family, {"name": "knn", "bandwidth": 0.3}) == pytest.approx(0.144, abs=0.003)


def test_anchors_of_omniglot_rotation(omniglot):
    """1 - cos of the error: chance is 1; nearest pixels and ridge are below it, standard error 0.008."""
    family = omniglot("rotation")
    episode = family.episodes("meta_test", range(100))
    constant = torch.tensor([1.0, 0.0]).expand_as(episode.query_y)
    assert float(losses(constant, episode).mean()) == pytest.approx(1, abs=0.03)
    assert anchor(family, {"name": "knn"}) == pytest.approx(0.845, abs=0.025)
    assert anchor(family, {"name": "ridge", "penalty": 1000 / 1024}) == pytest.approx(0.743, abs=0.025)
