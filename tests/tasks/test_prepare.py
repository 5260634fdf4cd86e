"""Caches of images: right pixels, built once, continued after a kill, built anew when something changed, refused when bad."""

import concurrent.futures
import errno
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mambacl import tasks
from mambacl.tasks import image_cache, store
from mambacl.tasks.bank import load_bank, recipe_of
from mambacl.tasks.image_cache import Shrink
from mambacl.tasks.images_config import ImagesConfig
from mambacl.tasks.sources.decode import shrink
from mambacl.tasks.store import BuildStopped

CLASSES, IMAGES = 5, 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and chunks of four images."""
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cache, "CHUNK_BYTES", 4 * 3 * 16**2)


@pytest.fixture
def folder(tmp_path):
    """Noisy JPEG files of different sizes and modes."""
    rng = np.random.default_rng(0)
    for c in range(CLASSES):
        (tmp_path / "data" / f"class {c}").mkdir(parents=True)
        for n in range(IMAGES):
            pixels = rng.integers(0, 256, (20 + n, 30 - c, 3), np.uint8)
            image = Image.fromarray(pixels).convert(("RGB", "L", "CMYK")[n % 3])
            image.save(tmp_path / "data" / f"class {c}" / f"{n}.jpg")
    return tmp_path / "data"


def config(folder, **fields):
    return ImagesConfig(**({"path": str(folder), "size": 16} | fields))


@pytest.fixture
def worked(monkeypatch):
    """The paths of all images that were worked on."""
    paths = []
    whole = Shrink.__call__

    def counting(self, part):
        paths.extend(part.path)
        return whole(self, part)

    monkeypatch.setattr(Shrink, "__call__", counting)
    return paths


def test_pixels_are_those_that_pil_gives(folder):
    for grey in (False, True):
        images = load_bank(config(folder, grey=grey)).images
        files = sorted(folder.rglob("*.jpg"))
        expected = [
            np.atleast_3d(np.asarray(Image.open(file).convert("L" if grey else "RGB").resize((16, 16), Image.Resampling.BILINEAR)))
            for file in files
        ]  # fmt: skip
        assert np.array_equal(images.numpy(), np.stack(expected).transpose(0, 3, 1, 2))


def test_the_second_time_nothing_is_listed_or_decoded(folder, worked, monkeypatch):
    first = load_bank(config(folder))
    assert len(worked) == CLASSES * IMAGES
    monkeypatch.setattr("mambacl.tasks.sources.source.list_folder", None)
    second = load_bank(config(folder))
    assert len(worked) == CLASSES * IMAGES
    assert (first.digest, first.images.tolist()) == (second.digest, second.images.tolist())
    assert second.classes.tolist() == [f"class {c}" for c in range(CLASSES)]


def test_the_cache_is_mapped_and_cannot_be_changed_through_a_bank(folder):
    bank = load_bank(config(folder))
    [array] = (folder.parent / "cache").rglob("array.bin")
    before = array.read_bytes()
    assert len(before) == bank.images.numel()
    bank.images.zero_()
    assert array.read_bytes() == before


def test_other_settings_have_other_caches(folder, worked):
    sizes = {tuple(load_bank(config(folder, **fields)).images.shape) for fields in ({}, {"grey": True}, {"size": 8})}
    assert sizes == {(40, 3, 16, 16), (40, 1, 16, 16), (40, 3, 8, 8)}
    load_bank(config(folder))
    assert len(worked) == 3 * CLASSES * IMAGES


@pytest.mark.parametrize("change", ["another image", "the same size", "one less", "the code"])
def test_a_cache_from_other_data_or_code_is_never_used(folder, worked, monkeypatch, change):
    before = load_bank(config(folder))
    if change == "another image":
        Image.new("RGB", (9, 9)).save(folder / "class 0" / "new.png")
    elif change == "the same size":
        file = folder / "class 0" / "0.jpg"
        file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    elif change == "one less":
        (folder / "class 0" / "0.jpg").unlink()
    else:
        monkeypatch.setattr(image_cache, "VERSION", 2)
    worked.clear()
    after = load_bank(config(folder))
    assert len(worked) == len(after.images), "all was decoded again"
    assert (after.digest == before.digest) == (change == "the code")
    assert len(before.images) == 40, "a process that has the old one mapped keeps it"


SLOW = """
import sys, time
from mambacl.tasks import image_cache
from mambacl.tasks.bank import load_bank
from mambacl.tasks.images_config import ImagesConfig
image_cache.CHUNK_BYTES = 4 * 3 * 16**2
image_cache.Shrink.threads = False
whole = image_cache.Shrink.__call__
def slow(self, part):
    time.sleep(0.1)
    return whole(self, part)
image_cache.Shrink.__call__ = slow
load_bank(ImagesConfig(path=sys.argv[1], size=16))
"""


def test_a_killed_build_goes_on_and_gives_the_same_bytes(folder, worked, tmp_path, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(folder)])
    deadline = time.monotonic() + 60
    while len(done := list((tmp_path / "cache").rglob("chunk-*.npz"))) < 3:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = list((tmp_path / "cache").rglob("chunk-*.npz"))
    continued = load_bank(config(folder))
    assert len(worked) == 40 - 4 * len(done), "what was done is not done again"
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "another"))
    fresh = load_bank(config(folder))
    assert (continued.digest, continued.images.tolist()) == (fresh.digest, fresh.images.tolist())
    kept, new = (sorted(f.name for f in (tmp_path / c).rglob("*") if f.is_file()) for c in ("cache", "another"))
    assert kept == new == ["array.bin", "hashes.npy", "labels.npz", "lock", "manifest.json", "started.json"]


def test_a_kill_while_chunks_are_joined_loses_nothing(folder, worked, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_cache.PixelDigest, "facts", killed)
        with pytest.raises(KeyboardInterrupt):
            load_bank(config(folder))
    assert not recipe_of(config(folder)).complete()
    load_bank(config(folder))
    assert len(worked) == 40


def test_processes_that_build_at_once_build_once(folder, worked):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        banks = list(pool.map(load_bank, [config(folder)] * 4))
    assert len(worked) == 40
    assert len({bank.digest for bank in banks}) == 1


def test_a_full_disk_stops_the_build_in_one_line_and_it_goes_on_later(folder, worked, monkeypatch):
    """/dev/full is a disk without space: writing to it fails as the kernel does."""

    def full(path, *mode):
        return io.open("/dev/full" if "chunk-000003" in str(path) else path, *mode)  # noqa: UP020

    with monkeypatch.context() as patch:
        patch.setattr(store, "open", full, raising=False)
        with pytest.raises(BuildStopped, match=r"^no space left in .*what is done is kept.*MAMBACL_CACHE") as caught:
            load_bank(config(folder))
    assert "\n" not in str(caught.value)
    kept = len(list((folder.parent / "cache").rglob("chunk-*")))
    assert kept == 3
    worked.clear()
    load_bank(config(folder))
    assert len(worked) == 40 - 4 * kept


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(folder, monkeypatch):
    def broken(path, *mode):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(store, "open", broken, raising=False)
    with pytest.raises(OSError, match="input/output error"):
        load_bank(config(folder))


def test_images_that_cannot_be_read_are_named_counted_and_refused_beyond_the_limit(folder, worked, caplog):
    """Missing, truncated, empty, or no image at all."""
    listed = ["path,class"] + [f"data/class {c}/{n}.jpg,{c}" for c in range(CLASSES) for n in range(IMAGES)]
    (folder.parent / "list.csv").write_text("\n".join([*listed, "data/missing.jpg,2"]))
    whole = (folder / "class 1" / "3.jpg").read_bytes()
    (folder / "class 1" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "class 1" / "4.jpg").write_bytes(b"")
    (folder / "class 3" / "0.jpg").write_text("no image")
    bad = ["class 1/3.jpg", "class 1/4.jpg", "class 3/0.jpg", "missing.jpg"]
    of_list = config(folder.parent / "list.csv", unreadable_limit=4)
    with pytest.raises(
        tasks.ConfigError, match=r"task\.path: unreadable image .*; task\.unreadable_limit allows 3"
    ) as caught:
        load_bank(of_list.model_copy(update={"unreadable_limit": 3}))
    assert "\n" not in str(caught.value)
    bank = load_bank(of_list)
    assert all(name in caplog.text for name in bad)
    assert "4 of 41 images left out as unreadable" in caplog.text
    assert bank.count.tolist() == [8, 6, 8, 7, 8]
    assert len(worked) < 2 * 41, "the chunks before the refusal are kept"
    with pytest.raises(tasks.ConfigError, match=r"unreadable_limit allows 3"):
        load_bank(of_list.model_copy(update={"unreadable_limit": 3}))


def test_a_source_without_a_readable_image_is_refused(folder):
    for file in folder.rglob("*.jpg"):
        file.write_text("no image")
    with pytest.raises(tasks.ConfigError, match=r"task\.path: none of the 40 images can be read"):
        load_bank(config(folder, unreadable_limit=99))


def test_small_classes_are_listed(folder):
    for c in range(3):
        for n in range(2 + c, IMAGES):
            (folder / f"class {c}" / f"{n}.jpg").unlink()
    sizes = {"name": "images", "path": str(folder), "size": 16, "tasks": 1, "shots": 5, "queries": 1}
    with pytest.raises(tasks.ConfigError) as caught:
        tasks.build(sizes)
    assert "too small: class " in str(caught.value)
    assert str(caught.value).endswith("task.drop_small_classes leaves them out")
    assert {2, 3, 4} == set(load_bank(config(folder)).count.tolist()) - {8}


def test_a_folder_that_cannot_hold_a_cache_is_named(folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BuildStopped, match=r"^cache folder .* cannot be made: Not a directory$"):
        load_bank(config(folder))


def test_padded_images_keep_their_aspect():
    wide = Image.new("L", (40, 10), 0)
    pixels = shrink(wide, 32, grey=True, fit="pad")[0]
    assert (pixels[12:20] == 0).all()
    assert (pixels[:12] == 255).all()
    assert (pixels[20:] == 255).all()


def test_memory_is_bounded_by_the_chunks_in_flight(tmp_path):
    """Many more images than memory would hold: peak memory grows by far less than the array."""
    code = """
import resource, sys
from mambacl.tasks.bank import load_bank
from mambacl.tasks.images_config import ImagesConfig
load_bank(ImagesConfig(path=sys.argv[1] + "/few.csv", size=512))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bank = load_bank(ImagesConfig(path=sys.argv[1] + "/many.csv", size=512))
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(bank.images.numel() / 2**20, grown)
"""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for name, count in (("few", 20), ("many", 160)):
        for n in range(count):
            os.link(tmp_path / "a.png", tmp_path / f"{name}{n}.png")
        rows = [f"{name}{n}.png,{n // 20}" for n in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,class", *rows]))
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    size, grown = map(float, child.stdout.split())
    assert size == 120
    assert grown < 40
