"""Image families: class-disjoint splits, support apart from queries, sources and their mistakes, augmentation."""

import numpy as np
import pytest
import torch
from PIL import Image

from mambacl import tasks
from mambacl.tasks.randomness import SPLITS


def write_npz(path, classes=30, images=6, **columns):
    """Images whose every pixel value tells the class (red) and number of the image (green)."""
    label = np.repeat(np.arange(classes), images)
    pixels = np.zeros((len(label), 8, 8, 3), np.uint8)
    pixels[..., 0] = label[:, None, None]
    pixels[..., 1] = np.tile(np.arange(images), classes)[:, None, None]
    np.savez(path, images=pixels, label=label, **columns)
    return {"name": "images", "path": str(path), "tasks": 3, "shots": 2, "queries": 1, "augment": None}


def identities(x):
    """(class, number) of every image in a batch."""
    return {(int(i[0]), int(i[1])) for i in x.flatten(0, 1)[:, :2, 0, 0]}


def test_classes_of_the_splits_are_disjoint(tmp_path):
    family = tasks.build(write_npz(tmp_path / "a.npz"))
    seen = [{c for c, _ in identities(family.fitted(split).episodes(split, range(200)).support_x)} for split in SPLITS]
    assert [len(classes) for classes in seen] == [18, 3, 2, 7]
    assert set.union(*seen) == set(range(30))
    assert sum(map(len, seen)) == 30


def test_support_and_queries_of_an_episode_share_no_image(tmp_path):
    family = tasks.build(write_npz(tmp_path / "a.npz"))
    for number in range(100):
        episode = family.episodes("meta_train", [number])
        support, queries = identities(episode.support_x), identities(episode.query_x)
        assert len(support) == 6
        assert len(queries) == 3
        assert not support & queries
        assert {c for c, _ in support} == {c for c, _ in queries}


def test_groups_stay_together(tmp_path):
    alphabet = np.repeat(np.arange(30) // 5, 6)
    config = write_npz(tmp_path / "a.npz", alphabet=alphabet) | {"group": "alphabet", "shots": 1, "tasks": 2}
    for seed in range(5):
        family = tasks.build(config | {"seed": seed})
        train, val, confirm, test = (set(family.classes[split] // 5) for split in SPLITS)
        assert len(train) + len(val | confirm) + len(test) == len(train | val | confirm | test) == 6


def test_a_class_in_two_groups_is_refused(tmp_path):
    config = write_npz(tmp_path / "a.npz", drawer=np.tile(np.arange(6), 30)) | {"group": "drawer"}
    with pytest.raises(ValueError, match=r"task\.group: some class has images of more than one group"):
        tasks.build(config)


def test_columns_that_do_not_fit_are_named(tmp_path):
    config = write_npz(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"task\.group: .* has no column 'lable' \(did you mean 'label'\?\)"):
        tasks.build(config | {"group": "lable"})
    np.savez(tmp_path / "b.npz", images=np.zeros((4, 8, 8), np.float32), label=np.zeros(4))
    with pytest.raises(ValueError, match=r"task\.path: images must be uint8"):
        tasks.build(config | {"path": str(tmp_path / "b.npz")})
    (tmp_path / "c.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"task\.path: .*c\.npz cannot be read as \.npz"):
        tasks.build(config | {"path": str(tmp_path / "c.npz")})


def test_a_pickle_in_an_npz_is_never_loaded(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8), label=np.array([Hostile()] * 4, object))
    with pytest.raises(ValueError, match=r"task\.path: .* cannot be read"):
        tasks.build({"name": "images", "path": str(tmp_path / "a.npz")})
    assert not (tmp_path / "canary").exists()


def test_data_keep_their_digests(tmp_path, monkeypatch):
    """Golden digests: models are evaluated on the data that they were trained on, which is known by these."""
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    y, x = np.mgrid[:14, :20]
    for c in range(12):
        (tmp_path / "data" / f"class-{c}").mkdir(parents=True)
        for n in range(4):
            pixels = np.stack([x * (c + 1) + n, y * 7 + n * 40, x * y + c], -1) % 256
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / f"class-{c}" / f"{n}.png")
    folder = {"name": "images", "path": str(tmp_path / "data"), "size": 8, "tasks": 1, "shots": 2, "queries": 1}
    npz = write_npz(tmp_path / "a.npz", alphabet=np.repeat(np.arange(30) // 5, 6)) | {"group": "alphabet", "tasks": 2}
    digests = [tasks.build(config).spec.digest[:16] for config in (folder, folder | {"grey": True}, npz)]
    monkeypatch.undo()  # glyphs are rendered into their own cache, once for all tests
    digests += [tasks.build({"name": "glyphs", **fields}).spec.digest[:16] for fields in ({"by_script": True}, {})]
    assert digests == [
        "ce3bbb81bddd926a", "11dce2592d0707d2", "90c4c2027aaf53bb", "f4c4856387ca5624", "ead5174ee82e2b1e",
    ]  # fmt: skip


def test_image_folder_and_unreadable_files(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    tmp_path = tmp_path / "data"
    for c in range(12):
        (tmp_path / f"class-{c}").mkdir(parents=True)
        for n in range(4):
            Image.new("RGB", (20, 14), (c, n, 0)).save(tmp_path / f"class-{c}" / f"{n}.png")
    config = {"name": "images", "path": str(tmp_path), "size": 8, "tasks": 1, "shots": 2, "queries": 1, "augment": None}
    family = tasks.build(config)
    assert family.spec.shape == (3, 8, 8)
    assert len(family.bank.images) == 48
    assert tasks.build(config | {"grey": True}).spec.shape == (1, 8, 8)
    (tmp_path / "class-3" / "0.png").write_bytes(b"\x89PNG truncated")
    with pytest.raises(ValueError, match=r"task\.path: unreadable image .*class-3/0\.png.*unreadable_limit allows 0"):
        tasks.build(config)
    family = tasks.build(config | {"unreadable_limit": 1})
    assert len(family.bank.images) == 47
    assert "class-3/0.png" in caplog.text
    assert "1 of 48 images left out" in caplog.text


def test_small_classes_are_dropped_only_when_allowed(tmp_path):
    label = np.repeat(np.arange(30), 6)[:-5]
    np.savez(tmp_path / "a.npz", images=np.zeros((len(label), 8, 8), np.uint8), label=label)
    config = {"name": "images", "path": str(tmp_path / "a.npz"), "tasks": 2, "shots": 2, "queries": 1}
    with pytest.raises(ValueError, match=r"task\.shots: the smallest class of \w+ has 1 images"):
        tasks.build(config)
    family = tasks.build(config | {"drop_small_classes": True})
    assert sum(len(family.classes[split]) for split in SPLITS) == 29


def test_augmentation_changes_meta_train_alone():
    plain, augmented = (tasks.build({"name": "glyphs", "augment": a}) for a in (None, {"turns": False}))
    assert not torch.equal(*(f.episodes("meta_train", [3]).support_x for f in (plain, augmented)))
    for split in ("meta_val", "meta_test"):
        assert torch.equal(*(f.episodes(split, [3]).support_x for f in (plain, augmented)))


def test_quarter_turns_are_classes_of_their_own(tmp_path):
    config = write_npz(tmp_path / "a.npz") | {"tasks": 60}
    with pytest.raises(ValueError, match=r"task\.tasks: meta_train has 18 classes, an episode needs 60"):
        tasks.build(config)
    family = tasks.build({"name": "glyphs", "augment": {"degrees": 0, "shift": 0, "scale": 0}, "vocabulary": 4000})
    assert family.limits("meta_train")["tasks"] == 4 * len(family.classes["meta_train"])
    episode, bank = family.episodes("meta_train", range(16)), family.bank.images.flatten(1)
    originals = {image.numpy().tobytes() for image in bank}
    turned = torch.stack([torch.rot90(episode.support_x.flatten(0, 1), k, (-2, -1)).flatten(1) for k in range(4)], 1)
    matches = torch.tensor([[t.numpy().tobytes() in originals for t in image] for image in turned])
    assert matches.any(1).all(), "every image is a stored one, turned by a quarter"
    assert (matches[:, 1:].any(1) & ~matches[:, 0]).float().mean() > 0.5, "most are turned"


def test_nearest_mean_on_glyphs_leaves_room_to_learn():
    """The seeded change of each glyph keeps pixels from telling all: nearest mean is near a third at 10 x 5."""
    from mambacl import learners
    from mambacl.learners.objective import scores

    family = tasks.build({"name": "glyphs"})
    episode = family.episodes("meta_test", range(100))
    accuracy = scores(learners.build({"name": "nearest_mean"}, family.spec)(episode).prediction, episode).mean()
    assert 0.25 < accuracy < 0.40


def test_omniglot_by_alphabet(data):
    family = tasks.build(
        {"name": "images", "path": str(data / "omniglot_background_32.npz"), "group": "alphabet", "vocabulary": 100}
    )
    assert sum(len(family.classes[split]) for split in SPLITS) == 964
    alphabets = [set(family.bank.group[family.classes[split]]) for split in SPLITS]
    assert sum(map(len, alphabets)) == len(set.union(*alphabets)) == 30
    assert family.varied(tasks=100).episodes("meta_test", [0]).support_x.shape == (1, 500, 1, 32, 32)
