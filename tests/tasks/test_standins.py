"""Stand-ins: families of public data sets that are not there, with the splits that the real ones would have."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from mambacl import learners, tasks
from mambacl.tasks.frozen import LIBRARIES
from mambacl.tasks.images_config import DATASETS, DatasetConfig, FrozenConfig
from mambacl.tasks.randomness import SPLITS
from mambacl.tasks.sources.named import handwriting, objects
from mambacl.tasks.sources.named.counts import COUNTS, Counts, customary, equal, even, spread
from mambacl.tasks.standins import standin
from mambacl.tasks.widths import WIDTHS, width_of

DOMAINS = COUNTS["domainnet"].domains


def config(dataset, **fields):
    sizes = {"root": "nowhere", "tasks": 20, "shots": 5, "queries": 5}
    return DatasetConfig(dataset=dataset, **(sizes | fields))


@pytest.mark.parametrize(
    ("name", "classes", "total", "least", "most"),
    [
        ("omniglot", 964 + 659, 32_460, 20, 20),
        ("cifar100", 100, 60_000, 600, 600),
        ("imagenet1k", 1_000, 1_281_167, 732, 1_300),
        ("imagenet_r", 200, 30_000, 51, 430),
        ("cub200", 200, 11_788, 41, 60),
        ("cars", 196, 16_185, 48, 136),
        ("dogs", 120, 20_580, 148, 252),
        ("aircraft", 100, 10_000, 100, 100),
        ("caltech101", 101, 8_677, 31, 800),
        ("flowers102", 102, 8_189, 40, 258),
        ("emnist", 47, 131_600, 2_800, 2_800),
        ("casia_hwdb", 7_185 + 171, 3_895_135, 298, 1_014),
        ("celeb", 20_000, 2_000_000, 20, 180),
    ],
)
def test_counts_are_those_that_are_published(name, classes, total, least, most):
    images = COUNTS[name].images.reshape(classes, -1).sum(1)
    assert (len(images), images.sum(), images.min(), images.max()) == (classes, total, least, most)


def test_every_data_set_has_counts():
    assert set(COUNTS) == set(DATASETS)
    images = COUNTS["domainnet"].images
    assert images.shape == (345, 6)
    assert images.sum() == 586_575
    assert set(images[:, DOMAINS.index("quickdraw")].tolist()) == {500}
    assert len(np.unique(images.argmin(0))) > 3, "classes that are small in one domain are not in another"


@pytest.mark.parametrize(
    ("classes", "total", "least", "most"), [(10, 150, 10, 20), (345, 9_000, 2, 800), (7, 600, 1, 100), (5, 500, 3, 200)]
)
def test_spread_counts_keep_total_and_ends(classes, total, least, most):
    counts = spread(classes, total, least, most)
    assert (len(counts), counts.sum(), counts[0], counts[-1]) == (classes, total, least, most)
    assert least == counts.min()
    assert most == counts.max()
    assert even(classes, total).sum() == total
    assert np.ptp(even(classes, total)) <= 1


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *((name, {}) for name in DATASETS if name not in ("domainnet", "imagenet_r", "emnist")),
        ("emnist", {"tasks": 10}),
        ("imagenet_r", {}),
        ("imagenet_r", {"test_domains": ("cartoon", "painting", "sketch"), "drop_small_classes": True}),
        ("domainnet", {}),
        *(("domainnet", {"test_domains": (name,), "drop_small_classes": True}) for name in DOMAINS),
        ("casia_hwdb", {"tasks": 100}),
        ("celeb", {"tasks": 100}),
    ],
)
def test_a_standin_makes_episodes_without_data(name, fields):
    family = standin(config(name, **fields))
    images = family.bank.images
    assert images.untyped_storage().nbytes() == images[0].nbytes, "one image is held"
    for split in SPLITS:
        episode = family.fitted(split).episodes(split, [0, 1])
        assert episode.tasks == min(family.config.tasks, len(family.classes[split]))
        assert not episode.support_x.any()
    assert family.domains["meta_test"] == (fields.get("test_domains") or COUNTS[name].domains)
    classes = [set(family.classes[split].tolist()) for split in SPLITS]
    assert sum(map(len, classes)) == len(set.union(*classes))
    assert "drop_small_classes" in fields or len(set.union(*classes)) == len(COUNTS[name].images)


def picture(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (12, 12)).save(path)


def write_omniglot(root):
    """Three background alphabets and two others, of two to six characters."""
    sizes = {"background": (2, 3, 4), "evaluation": (5, 6)}
    for part, characters in sizes.items():
        for count in characters:
            for c in range(count):
                folder = root / "omniglot-py" / f"images_{part}" / f"{part}{count}" / f"character{c:02d}"
                for n in range(4):
                    picture(folder / f"{n}.png", "1")
    alphabet = np.repeat(np.arange(5), np.concatenate(list(sizes.values())))
    return Counts(equal(20, 4), group=alphabet, test=alphabet >= 3)


def write_cifar100(root):
    folder = root / "cifar-100-binary"
    folder.mkdir()
    for part in ("train", "test"):
        (folder / f"{part}.bin").write_bytes(b"".join(bytes([0, c]) + bytes(3072) for c in range(100)) * 2)
    (folder / "fine_label_names.txt").write_text("".join(f"name{c}\n" for c in range(100)))
    return Counts(equal(100, 4), test=customary(100, objects.CIFAR_TEST))


def write_domainnet(root):
    for domain in DOMAINS:
        for c in range(30):
            for n in range(4):
                picture(root / domain / f"class{c}" / f"{n}.png")
    return Counts(np.full((30, len(DOMAINS)), 4), domains=DOMAINS)


def write_casia_hwdb(root):
    characters = [chr(0x4E00 + c) for c in range(1100)]
    usable = [c for c in characters if len(c.encode("gbk", "ignore")) == 2]
    records = (struct.pack("<I2sHH", 14, c.encode("gbk"), 2, 2) + bytes(4) for c in usable)
    (root / "1.gnt").write_bytes(b"".join(records) * 4)
    return Counts(equal(len(usable), 4), test=customary(len(usable), handwriting.CASIA_TEST))


@pytest.mark.parametrize(
    ("name", "write", "fields"),
    [
        ("omniglot", write_omniglot, {}),
        ("omniglot", write_omniglot, {"splits": "seed"}),
        ("cifar100", write_cifar100, {"splits": "official"}),
        ("cifar100", write_cifar100, {"train_images": 3, "train_classes": 20}),
        ("domainnet", write_domainnet, {}),
        ("domainnet", write_domainnet, {"test_domains": ("real", "sketch"), "seed": 3}),
        ("domainnet", write_domainnet, {"test_domains": ("real",), "class_disjoint": False, "grey": True}),
        ("casia_hwdb", write_casia_hwdb, {"size": 8}),
    ],
)
def test_a_standin_has_the_splits_of_the_data(tmp_path, monkeypatch, name, write, fields):
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    monkeypatch.setitem(COUNTS, name, write(tmp_path / "data"))
    task = config(name, root=str(tmp_path / "data"), tasks=2, shots=1, queries=2, **fields)
    real, blank = tasks.build(task), standin(task)
    for split in SPLITS:
        mine, own = blank.pools[split], real.pools[split]
        assert mine.count.tolist() == own.count.tolist()
        assert mine.domains == own.domains
        assert blank.limits(split) == real.limits(split)
    assert blank.spec.digest != real.spec.digest
    assert blank.spec.model_copy(update={"digest": real.spec.digest}) == real.spec


def test_learners_take_standins_of_features():
    clip = {"frozen": "open_clip/ViT-B-32-quickgelu", "weights": "nowhere.safetensors"}
    family = standin(config("cifar100", encoder=FrozenConfig(**clip)))
    assert (family.spec.input, family.spec.shape) == ("vector", (512,))
    learner = learners.build({"name": "mamba", "layers": 1, "width": 8}, family.spec)
    assert learner(family.episodes("meta_test", [0])).prediction.shape == (1, 100, 20)
    assert width_of(FrozenConfig(frozen="timm/vit_base_patch16_224.augreg_in21k")) == 768


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_16"])
def test_widths_are_those_of_the_models(name):
    from mambacl.tasks.vision import models

    with torch.device("meta"):
        encoder = LIBRARIES["torchvision"](name, models.get_model(name).state_dict())
        assert encoder.model.eval()(torch.zeros(1, 3, 224, 224)).shape[1] == WIDTHS[f"torchvision/{name}"]


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (config("dogs", splits="official"), r"task\.splits: dogs has no official split; allowed: seed"),
        (config("aircraft", tasks=30), r"task\.tasks: meta_test has 24 classes, an episode needs 30"),
        (
            config("domainnet", test_domains=("painting",)),
            r"task\.shots: the smallest class of meta_test has \d images, .*; task\.drop_small_classes leaves them out",
        ),
        (
            config("cub200", encoder=FrozenConfig(frozen="torchvision/resnet19", weights="nowhere")),
            r"task\.encoder\.frozen: the width of 'torchvision/resnet19' is not known "
            r"\(did you mean 'torchvision/resnet1\d+'\?\); allowed without data: efficientnet_lite0, .*",
        ),
    ],
)
def test_what_could_not_be_trained_on_the_data_is_refused_without_them(task, line):
    with pytest.raises(tasks.ConfigError, match=rf"^{line}$"):
        standin(task)
