"""Sketches: a class is known again by its images in any order, under any name, from any kind of source."""

import numpy as np
import pytest
from PIL import Image

from mambacl import tasks
from mambacl.tasks import bank as banks
from mambacl.tasks.bank import ImageBank, load_bank, recipe_of
from mambacl.tasks.images_config import FrozenConfig, ImagesConfig
from mambacl.tasks.prepare import HASHES as FILE
from mambacl.tasks.sketches import HASHES, hash_of, hash_of_picture, hashes_in, hashes_of, sketches_of

CLASSES, IMAGES = 6, 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images():
    """Random images (classes, images, 8, 8)."""
    return np.random.default_rng(0).integers(0, 256, (CLASSES, IMAGES, 8, 8), np.uint8)


def bank_of(images):
    return ImageBank.of(images.reshape(-1, *images.shape[2:]), np.arange(len(images)).repeat(images.shape[1]))


def sketches(images):
    return bank_of(images).sketches


def saved(path, images):
    """The images as PNG files in a folder a class, under names that turn their order around."""
    for number, of_class in enumerate(images):
        folder = path / f"{chr(ord('z') - number)}"
        folder.mkdir(parents=True)
        for image, pixels in enumerate(of_class):
            Image.fromarray(pixels).save(folder / f"{99 - image}.png")
    return ImagesConfig(path=str(path), size=8, grey=True)


def test_a_hash_is_that_of_the_pixels_in_any_array_or_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert hashes_of(pixels.transpose(2, 0, 1)[None]).tolist() == [hash_of(pixels)]
    grey = pixels[..., 0]
    assert hash_of(np.stack([grey] * 3, -1)) == hash_of(grey) == hashes_of(grey[None, None])[0]
    assert hash_of(grey) != hash_of(grey.reshape(7, 5)), "the shape counts"
    for name, mode in (("grey.png", "L"), ("colour.png", "RGB"), ("palette.gif", "P")):
        Image.fromarray(grey).convert(mode).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert hash_of_picture(image) == hash_of(grey), name
    assert hashes_of(np.zeros((0, 1, 2, 2), np.uint8)).tolist() == []


def test_a_sketch_has_the_smallest_hashes_of_a_class(images):
    for sketch, of_class in zip(sketches(images), images, strict=True):
        smallest = sorted(hashes_of(of_class[:, None]).tolist())[:HASHES]
        assert [int(digits, 16) for digits in hashes_in(sketch)] == smallest


def test_order_and_repeated_images_change_nothing(images):
    rng, whole = np.random.default_rng(1), sketches(images)
    assert sketches(rng.permutation(images, axis=1)) == whole
    assert sketches(images[::-1]) == whole[::-1]
    assert sketches(np.concatenate([images, images[:, :5]], axis=1)) == whole


def test_classes_with_half_of_their_images_in_common_share_hashes(images):
    first, second = (list(map(hashes_in, sketches(part))) for part in (images[:, :14], images[:, 6:]))
    for place, ours in enumerate(first):
        assert [bool(set(ours) & set(theirs)) for theirs in second] == [other == place for other in range(CLASSES)]


def test_an_image_that_several_classes_have_tells_none_apart(images):
    images[:3, 0] = 0
    empty = f"{hash_of(images[0, 0]):016x}"
    assert not any(empty in hashes_in(sketch) for sketch in sketches(images))
    hashes = np.array([5, 7, 5, 7, 1], np.uint64)
    assert sketches_of(hashes, np.array([0, 0, 1, 1, 1]), 2) == [f"{5:016x}{7:016x}", f"{1:016x}"], "it has no other"


def test_classes_are_the_same_in_memory_in_files_and_in_part(images, tmp_path):
    ours, theirs = bank_of(images), load_bank(saved(tmp_path / "files", images))
    assert theirs.classes.tolist() == ["u", "v", "w", "x", "y", "z"]
    assert theirs.sketches == ours.sketches[::-1]
    some = np.array([1, 4])
    assert ours.keep(some).sketches == [ours.sketches[c] for c in some]
    assert theirs.keep(some).sketches == [theirs.sketches[c] for c in some]


def test_hashes_are_kept_when_images_are_prepared(images, tmp_path, monkeypatch):
    files = saved(tmp_path / "files", images)
    found, store = load_bank(files).sketches, recipe_of(files).store
    with monkeypatch.context() as patch:
        patch.setattr(banks, "hashes_of", None)
        assert load_bank(files).sketches == found, "none is made again"
    (store.folder / FILE).unlink()
    assert load_bank(files).sketches is None, "of an array of an older build they are not known"


def test_a_class_is_known_again_at_another_size_and_behind_an_encoder(images, tmp_path):
    """What is hashed is the image in its source, and not what learners read."""
    pytest.importorskip("efficientnet_lite_pytorch")
    files = saved(tmp_path / "files", images[:3, :4])
    whole = load_bank(files).sketches
    assert load_bank(files.model_copy(update={"size": 12})).sketches == whole
    encoder = FrozenConfig(frozen="efficientnet_lite0")
    assert load_bank(files.model_copy(update={"encoder": encoder})).sketches == whole
    assert load_bank(files).hashes is not None


def test_a_family_among_some_classes_asks_about_these_alone():
    family = tasks.build({"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1, "vocabulary": 9})
    some = family.classes["meta_test"][5:12]
    fewer = family.among("meta_test", some.tolist())
    assert fewer.classes["meta_test"].tolist() == some.tolist()
    assert fewer.limits("meta_test")["tasks"] == 7
    assert set(fewer.asked_classes("meta_test", range(40)).ravel().tolist()) == set(some.tolist())
    assert fewer.pools["meta_train"] is family.pools["meta_train"]
    mono = fewer.in_domains("meta_test", ["Sans", "SansMono", "Serif"])
    assert set(mono.classes["meta_test"].tolist()) <= set(some.tolist())
    with pytest.raises(tasks.ConfigError, match="task: sine has no classes"):
        tasks.build({"name": "sine"}).among("meta_test", [0])
