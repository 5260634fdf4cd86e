"""Caches built with Ray Data have the bytes of those built in one process, go on where they ended, and fail in one line."""

import numpy as np
import pytest
from PIL import Image

from mambacl.platform.data import prepare as preparing
from mambacl.platform.data.prepare import prepare
from mambacl.platform.session import session
from mambacl.tasks import image_cache
from mambacl.tasks.bank import load_bank, recipe_of
from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import FrozenConfig, GlyphsConfig, ImagesConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.prepare import Build, build_here
from mambacl.tasks.sine_config import SineConfig
from mambacl.tasks.sources.files import SourceAway


@pytest.fixture(scope="module", autouse=True)
def one_session():
    with session(None):
        yield


@pytest.fixture
def config(tmp_path, monkeypatch):
    """40 images, one of them no image, in chunks of eight; no cache yet."""
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "ray"))
    monkeypatch.setattr(image_cache, "CHUNK_BYTES", 8 * 3 * 16**2)
    rng = np.random.default_rng(0)
    for c in range(5):
        (tmp_path / "data" / str(c)).mkdir(parents=True)
        for n in range(8):
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "data" / str(c) / f"{n}.png")
    (tmp_path / "data" / "3" / "4.png").write_text("no image")
    return ImagesConfig(path=str(tmp_path / "data"), size=16, unreadable_limit=1)


def files(folder):
    """Every file's bytes by its name, without the paths of this test's folders."""
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("encoder", [None, FrozenConfig(frozen="efficientnet_lite0")], ids=["pixels", "features"])
def test_both_builders_write_the_same_bytes(config, tmp_path, monkeypatch, encoder):
    config = config.model_copy(update={"encoder": encoder})
    prepare([config], None)
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "here"))
    build_here(recipe_of(config))
    by_ray, here = files(tmp_path / "ray"), files(tmp_path / "here")
    assert (
        sorted(by_ray)
        == sorted(here)
        == ["array.bin", "hashes.npy", "labels.npz", "lock", "manifest.json", "started.json"]
    )
    for name in by_ray:
        if name == "labels.npz":  # an archive holds the time at which it was written
            a, b = (Labels.load(next((tmp_path / folder).rglob(name))) for folder in ("ray", "here"))
            assert repr(a) == repr(b)
        else:
            assert by_ray[name] == here[name], name


def test_what_is_there_is_not_built_again(config, monkeypatch):
    recipe = recipe_of(config)
    with recipe.store.locked():
        build = Build(recipe)
        for number in (0, 3):
            build.put(number, recipe.work(build.part(number)))
    seen = []
    whole = preparing.computed

    def watched(build):
        for number, chunk in whole(build):
            seen.append(number)
            yield number, chunk

    monkeypatch.setattr(preparing, "computed", watched)
    prepare([config, GlyphsConfig(), SineConfig()], None)
    assert sorted(seen) == [1, 2, 4]
    monkeypatch.setattr(preparing, "build_on_cluster", None)
    prepare([config], None)
    assert len(load_bank(config).images) == 39


def test_mistakes_found_by_workers_are_one_line(config, tmp_path, unused_port):
    with pytest.raises(
        ConfigError, match=r"task\.path: unreadable image .*3/4\.png \(not an image\).* allows 0"
    ) as caught:
        prepare([config.model_copy(update={"unreadable_limit": 0})], None)
    assert "\n" not in str(caught.value)
    address = f"http://127.0.0.1:{unused_port}/a.png"
    (tmp_path / "list.csv").write_text(f"path,class\n{address},a\n")
    with pytest.raises(SourceAway, match=rf"^{address} did not answer in 4 tries: Cannot connect to host") as caught:
        prepare([ImagesConfig(path=str(tmp_path / "list.csv"))], None)
    assert "\n" not in str(caught.value)
