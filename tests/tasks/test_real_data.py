"""Real images: alphabets and fonts and styles stay apart, and frozen features tell photographs apart better than pixels."""

import numpy as np
import pytest

from mambacl import learners, tasks
from mambacl.learners.objective import scores
from mambacl.tasks.randomness import SPLITS


def accuracy(family, learner="nearest_mean", episodes=64):
    episode = family.episodes("meta_test", range(episodes))
    return float(scores(learners.build({"name": learner}, family.spec)(episode).prediction, episode).mean())


def shown_domains(family, split, episodes=16):
    """The domains of all images in some episodes; equal images of several domains count for each."""
    bank, shown = family.bank, set()
    known = {}
    for image, domain in zip(bank.images, bank.domain, strict=True):
        known.setdefault(image.numpy().tobytes(), set()).add(str(bank.domains[domain]))
    episode = family.episodes(split, range(episodes))
    for image in [*episode.support_x.flatten(0, 1), *episode.query_x.flatten(0, 1)]:
        if len(of := known[image.numpy().tobytes()]) == 1:
            shown |= of
    return shown


def test_kanji_are_tested_in_fonts_that_were_not_trained_on(data):
    brushes = ["bkai", "cwkai", "gyosho", "kouzanT", "mouhitsu", "sousyo", "ukai"]
    config = {"name": "images", "path": str(data / "kanji_fonts_32.npz"), "domain": "font", "augment": None}
    family = tasks.build(config | {"test_domains": brushes, "tasks": 20, "shots": 5, "queries": 1})
    assert shown_domains(family, "meta_test") == set(brushes)
    for split in SPLITS[:2]:
        assert not shown_domains(family, split) & set(brushes)
    assert [len(family.classes[split]) for split in SPLITS] == [720, 96, 96, 288]
    assert accuracy(family) > 0.4
    shared = tasks.build(config | {"test_domains": brushes, "class_disjoint": False, "shots": 4})
    assert [len(shared.classes[split]) for split in SPLITS] == [1200, 600, 600, 1200]
    assert [len(shared.pools[split].domains) for split in SPLITS] == [19, 5, 5, 7]


def test_emoji_leave_one_drawing_family_out(data):
    """A style has one image of each emoji, so that an episode needs the three styles of a family."""
    fluent = ["fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast"]
    family = tasks.build(
        {"name": "images", "path": str(data / "emoji_styles_32.npz"), "domain": "style", "augment": None}
        | {"test_domains": fluent, "tasks": 10, "shots": 2, "queries": 1, "drop_small_classes": True}
    )
    assert shown_domains(family, "meta_test") <= set(fluent)
    assert not shown_domains(family, "meta_train") & set(fluent)
    classes = [set(family.classes[split].tolist()) for split in SPLITS]
    assert sum(map(len, classes)) == len(set.union(*classes))
    assert accuracy(family) > 0.2, "twice chance"


def test_frozen_features_tell_groceries_apart_better_than_pixels(data, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    files = [
        (file, folder.name)
        for folder in sorted((data / "grocery").iterdir())[::8]
        for file in sorted(folder.glob("*.jpg"))[::5][:8]
    ]
    (tmp_path / "list.csv").write_text("path,class\n" + "".join(f"{file},{name}\n" for file, name in files))
    config = {
        "name": "images",
        "path": str(tmp_path / "list.csv"),
        "tasks": 2,
        "shots": 5,
        "queries": 2,
        "augment": None,
    }
    pixels = tasks.build(config)
    features = tasks.build(config | {"encoder": {"frozen": "efficientnet_lite0"}})
    assert np.array_equal(pixels.bank.classes, features.bank.classes)
    assert features.feature_statistics.norm > 0
    assert accuracy(features) > max(0.85, accuracy(pixels) + 0.05)
