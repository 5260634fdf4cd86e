"""Public data sets, each read from small files in its official layout."""

import functools
import hashlib
import http.server
import random
import struct
import tarfile
import threading
import urllib.error

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mambacl import tasks
from mambacl.tasks import vision
from mambacl.tasks.bank import load_bank
from mambacl.tasks.images_config import DATASETS, DatasetConfig
from mambacl.tasks.randomness import SPLITS
from mambacl.tasks.sources import files
from mambacl.tasks.sources.datasets import SETS
from mambacl.tasks.sources.named import dataset as named
from mambacl.tasks.sources.named import handwriting, objects

from .conftest import identities

IMAGES = 3


def picture(path, red=0, green=0, mode="RGB", size=(12, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, green, 0)).convert(mode).save(path, quality=100)


def bank_of(name, root, **fields):
    return load_bank(DatasetConfig(dataset=name, root=str(root), size=12, **fields))


def reds(bank):
    """The mean red of each image, to the nearest ten: JPEG is not exact."""
    return (bank.images[:, 0].float().mean((1, 2)) / 10).round().long().mul(10).tolist()


def test_every_data_set_has_a_reader():
    assert set(SETS) == set(DATASETS)


def test_omniglot(tmp_path):
    for part, alphabets in (("background", ("Greek", "Latin", "Hebrew")), ("evaluation", ("Tibetan", "Oriya"))):
        for alphabet in alphabets:
            for c in (1, 2):
                for n in range(IMAGES):
                    folder = tmp_path / "omniglot-py" / f"images_{part}" / alphabet / f"character{c:02d}"
                    picture(folder / f"{n:04d}_{n:02d}.png", 255, 255, mode="1", size=(105, 105))
    family = tasks.build({"name": "dataset", "dataset": "omniglot", "root": str(tmp_path), "tasks": 2, "shots": 2})
    assert family.spec.shape == (1, 32, 32)
    assert family.pools["meta_test"].names == tuple(f"{a}/character0{c}" for a in ("Oriya", "Tibetan") for c in (1, 2))
    assert {len(set(family.bank.group[family.classes[split]])) for split in SPLITS} == {1, 2}, "alphabets stay together"
    drawn = tasks.build(
        {"name": "dataset", "dataset": "omniglot", "root": str(tmp_path), "tasks": 2, "shots": 2, "splits": "seed"}
    )
    assert drawn.spec.digest != family.spec.digest


def write_cifar100(root, classes=100, images=IMAGES):
    """Records of two label bytes and three planes; the first images of the classes come in a known order."""
    folder = root / "cifar-100-binary"
    folder.mkdir()
    order = np.random.default_rng(0).permutation(classes)
    for part, rounds in (("train", images - 1), ("test", 1)):
        with open(folder / f"{part}.bin", "wb") as file:
            for _ in range(rounds):
                for c in order:
                    file.write(bytes([c // 5, c]) + bytes([c]) * 1024 + bytes([7]) * 1024 + bytes([9]) * 1024)
    (folder / "fine_label_names.txt").write_text("".join(f"name{c:02d}\n" for c in range(classes)))
    return [f"name{c:02d}" for c in order]


def test_cifar100_is_read_from_its_binary_version_with_the_customary_split(tmp_path):
    order = write_cifar100(tmp_path)
    family = tasks.build({"name": "dataset", "dataset": "cifar100", "root": str(tmp_path), "tasks": 5, "shots": 2})
    assert family.bank.images.shape == (300, 3, 32, 32)
    assert [tuple(i[:, 5, 5].tolist()) for i in family.bank.images[::IMAGES]] == [(c, 7, 9) for c in range(100)]
    random.seed(0)
    random.shuffle(order)
    assert set(family.pools["meta_test"].names) == set(order[:40])
    assert [len(family.classes[split]) for split in SPLITS] == [48, 6, 6, 40]


def test_imagenet1k(tmp_path):
    for c in range(3):
        for n in range(IMAGES):
            picture(tmp_path / "train" / f"n0000{c}" / f"n0000{c}_{n}.JPEG", 100 * c)
    bank = bank_of("imagenet1k", tmp_path)
    assert bank.classes.tolist() == ["n00000", "n00001", "n00002"]
    assert reds(bank) == [0] * 3 + [100] * 3 + [200] * 3
    with pytest.raises(tasks.ConfigError, match=r"task\.download: not possible .*put ILSVRC2012_img_train\.tar"):
        bank_of("imagenet1k", tmp_path / "elsewhere", download=True)


def test_imagenet_r_has_styles_as_domains(tmp_path):
    for c in range(3):
        for style in ("art", "sketch", "toy"):
            picture(tmp_path / "imagenet-r" / f"n0000{c}" / f"{style}_{c}.jpg", 100 * c)
    (tmp_path / "imagenet-r" / "README.txt").write_text("")
    bank = bank_of("imagenet_r", tmp_path)
    assert bank.domains[bank.domain].tolist() == ["art", "sketch", "toy"] * 3
    assert bank.count.tolist() == [3, 3, 3]


def test_cub200(tmp_path):
    folder, images, labels = tmp_path / "CUB_200_2011", [], []
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    for c, name in enumerate(names):
        for n in range(IMAGES):
            picture(folder / "images" / name / f"bird_{n}.jpg", 100 * c)
            images.append(f"{len(images) + 1} {name}/bird_{n}.jpg")
            labels.append(f"{len(labels) + 1} {c + 1}")
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    (folder / "image_class_labels.txt").write_text("\n".join(labels) + "\n")
    (folder / "classes.txt").write_text("".join(f"{c + 1} {name}\n" for c, name in enumerate(names)))
    bank = bank_of("cub200", tmp_path)
    assert bank.classes.tolist() == names
    assert reds(bank) == [0] * 3 + [100] * 3 + [200] * 3


def test_dogs(tmp_path):
    for c in range(3):
        picture(tmp_path / "Images" / f"n0208562{c}-breed_{c}" / "n1.jpg", 100 * c)
    bank = bank_of("dogs", tmp_path)
    assert bank.classes.tolist() == [f"n0208562{c}-breed_{c}" for c in range(3)]
    assert reds(bank) == [0, 100, 200]


def test_cars(tmp_path):
    folder, names = tmp_path / "stanford_cars", np.array(["AM General", "Acura RL", "Acura TL"], object)
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    (folder / "devkit").mkdir(parents=True)
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    for part, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        for c in range(3):
            picture(folder / f"cars_{part}" / f"{c:05d}.jpg", 100 * c)
        rows = np.array([(1, c + 1, f"{c:05d}.jpg") for c in range(3)], dtype=kind)
        scipy.io.savemat(folder / file, {"annotations": rows})
    bank = bank_of("cars", tmp_path)
    assert bank.classes.tolist() == names.tolist()
    assert reds(bank) == [0, 0, 100, 100, 200, 200], "training and test images together"
    (folder / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(tasks.ConfigError, match=r"task\.root: .*Dataset not found"):
        bank_of("cars", tmp_path)


def test_aircraft(tmp_path):
    data, names = tmp_path / "fgvc-aircraft-2013b" / "data", ["707-320", "Boeing 717", "C-130"]
    for part in ("trainval", "test"):
        lines = []
        for c, name in enumerate(names):
            picture(data / "images" / f"{part}{c}.jpg", 100 * c)
            lines.append(f"{part}{c} {name}\n")
        (data / f"images_variant_{part}.txt").write_text("".join(lines))
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in names))
    bank = bank_of("aircraft", tmp_path)
    assert bank.classes.tolist() == names
    assert reds(bank) == [0, 0, 100, 100, 200, 200]


def test_flowers102(tmp_path, monkeypatch):
    """torchvision checks the label files: here against those of the files that the test writes."""
    folder = tmp_path / "flowers-102"
    for n in range(9):
        picture(folder / "jpg" / f"image_{n + 1:05d}.jpg", 100 * (n % 3))
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.arange(9) % 3 + 1})
    scipy.io.savemat(folder / "setid.mat", {"trnid": [1, 2, 3], "valid": [4, 5, 6], "tstid": [7, 8, 9]})
    checked = {
        key: (name, hashlib.md5((folder / name).read_bytes()).hexdigest())
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    with pytest.raises(tasks.ConfigError, match=r"task\.root: .*Dataset not found or corrupted"):
        bank_of("flowers102", tmp_path)
    flowers = vision.datasets.Flowers102
    monkeypatch.setattr(flowers, "_file_dict", flowers._file_dict | checked)
    bank = bank_of("flowers102", tmp_path)
    assert bank.classes.tolist() == ["canterbury bells", "hard-leaved pocket orchid", "pink primrose"]
    assert reds(bank) == [200] * 3 + [100] * 3 + [0] * 3


def test_domainnet_leaves_one_domain_out(tmp_path):
    domains = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    for d, domain in enumerate(domains):
        for c in range(6):
            for n in range(IMAGES):
                picture(tmp_path / domain / f"class_{c}" / f"{domain}_{c}_{n}.png", c, d)
    config = {"name": "dataset", "dataset": "domainnet", "root": str(tmp_path), "tasks": 1, "shots": 2, "augment": None}
    family = tasks.build(config | {"test_domains": ["quickdraw"]})
    for split in SPLITS:
        shown = {d for _, d, _ in identities(family.episodes(split, range(60)).support_x.flatten(0, 1))}
        assert shown == ({3} if split == "meta_test" else {0, 1, 2, 4, 5})
    (tmp_path / "sketch").rename(tmp_path / "sketches")
    with pytest.raises(
        tasks.ConfigError, match=r"domainnet is not at .* \(no .*/sketch\); task\.download: true fetches it"
    ):
        tasks.build(config)


def test_caltech101(tmp_path):
    for c, name in enumerate(("BACKGROUND_Google", "Faces", "accordion", "airplanes")):
        picture(tmp_path / "caltech101" / "101_ObjectCategories" / name / "image_0001.jpg", 50 * c)
    bank = bank_of("caltech101", tmp_path)
    assert bank.classes.tolist() == ["Faces", "accordion", "airplanes"]
    assert reds(bank) == [50, 100, 150]


def test_emnist(tmp_path):
    """idx files: a header of big-endian numbers, then bytes; images are stored turned over."""
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, label in (("train", [0, 1, 10, 36]), ("test", [1, 46])):
        images = np.zeros((len(label), 28, 28), np.uint8)
        images[:, 3, 20] = np.array(label) + 1
        (folder / f"emnist-balanced-{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, len(label), 28, 28) + images.tobytes()
        )
        (folder / f"emnist-balanced-{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, len(label)) + bytes(label)
        )
    bank = load_bank(DatasetConfig(dataset="emnist", root=str(tmp_path), size=28))
    assert bank.classes.tolist() == ["0", "1", "A", "a", "t"]
    assert bank.count.tolist() == [1, 2, 1, 1, 1]
    assert bank.images[:, 0, 20, 3].tolist() == [1, 2, 2, 11, 37, 47]


def gnt(character, pixels):
    """One record as CASIA writes it."""
    height, width = pixels.shape
    return struct.pack("<I2sHH", 10 + pixels.size, character.encode("gbk"), width, height) + pixels.tobytes()


def test_casia_hwdb(tmp_path):
    characters = [chr(0x4E00 + c) for c in range(1006)]
    usable = [c for c in characters if len(c.encode("gbk", "ignore")) == 2]
    (tmp_path / "HWDB1.0trn_gnt").mkdir()
    for writer in range(IMAGES):
        with open(tmp_path / "HWDB1.0trn_gnt" / f"{writer:03d}-f.gnt", "wb") as file:
            for c, character in enumerate(reversed(usable)):
                file.write(gnt(character, np.full((4 + c % 3, 6), c % 250, np.uint8)))
            file.write(gnt(usable[0], np.zeros((0, 3), np.uint8)))
    config = {
        "name": "dataset",
        "dataset": "casia_hwdb",
        "root": str(tmp_path),
        "tasks": 1,
        "shots": 2,
        "augment": None,
    }
    family = tasks.build(config | {"vocabulary": 5})
    assert family.spec.shape == (1, 32, 32)
    assert family.bank.classes.tolist() == sorted(usable)
    assert set(family.bank.count.tolist()) == {IMAGES}, "records without pixels are left out"
    images = dict(zip(family.bank.classes.tolist(), family.bank.images[::IMAGES, 0], strict=True))
    assert (images[usable[-1]][16] == 0).all(), "wide: its middle row is ink from edge to edge"
    assert (images[usable[-1]][0] == 255).all(), "and white is above it"
    keys = list(reversed(usable))
    random.seed(0)
    random.shuffle(keys)
    assert set(family.pools["meta_test"].names) == set(keys[: handwriting.CASIA_TEST])
    (tmp_path / "bad.gnt").write_bytes(gnt(usable[0], np.zeros((4, 6), np.uint8)) + b"12")
    with pytest.raises(tasks.ConfigError, match=r"task\.root: .*bad\.gnt has no \.gnt record at byte 34"):
        tasks.build(config)


def test_a_truncated_gnt_record_is_an_unreadable_image(tmp_path):
    for c in "一丁七":
        (tmp_path / f"{ord(c)}.gnt").write_bytes(gnt(c, np.zeros((4, 6), np.uint8)) * 2)
    whole = gnt("万", np.zeros((4, 6), np.uint8))
    (tmp_path / "z.gnt").write_bytes(whole * 2 + whole[:-5])
    with pytest.raises(
        tasks.ConfigError, match=r"task\.root: unreadable image .*z\.gnt at byte 68 \(ends after 29 of 34 bytes"
    ):
        bank_of("casia_hwdb", tmp_path)
    assert bank_of("casia_hwdb", tmp_path, unreadable_limit=1).count.tolist() == [2, 2, 2, 2]


def test_celeb_leaves_out_people_with_few_images(tmp_path, monkeypatch):
    for person, images in (("m.1", 20), ("m.2", 19), ("m.3", 21), ("m.4", 20), ("m.5", 20)):
        for n in range(images):
            picture(tmp_path / person / f"{n}.png", 10)
    monkeypatch.setattr(objects, "CELEB_TEST", 2)
    bank = bank_of("celeb", tmp_path)
    assert bank.classes.tolist() == ["m.1", "m.3", "m.4", "m.5"]
    keys = ["m.1", "m.3", "m.4", "m.5"]
    random.seed(0)
    random.shuffle(keys)
    assert set(bank.classes[bank.test]) == set(keys[:2])


def test_an_official_split_that_is_not_there_is_refused(tmp_path):
    for c in range(3):
        picture(tmp_path / "Images" / f"n{c}" / "n1.jpg")
    with pytest.raises(tasks.ConfigError, match=r"task\.splits: dogs at .* has no official split; allowed: seed"):
        bank_of("dogs", tmp_path, splits="official")


def test_downloads_are_tried_again_checked_and_end_in_one_line(tmp_path, monkeypatch):
    asked = []

    def away(url, folder, md5):
        asked.append((url, md5))
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr(files, "PAUSE", 0.01)
    monkeypatch.setattr(vision, "download_and_extract_archive", away)
    with pytest.raises(
        files.SourceAway, match=r"cifar-100-binary\.tar\.gz cannot be fetched: .*no route to host"
    ) as caught:
        bank_of("cifar100", tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert (
        asked
        == [("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")]
        * files.TRIES
    )
    with pytest.raises(tasks.ConfigError, match=r"task\.download: not possible for this data set: get the \.gnt files"):
        bank_of("casia_hwdb", tmp_path / "none", download=True)


@pytest.fixture
def served(tmp_path):
    """The URL at which a server of the test's own has the files of tmp_path."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_archive_is_fetched_checked_and_unpacked(tmp_path, served):
    """torchvision's own download."""
    picture(tmp_path / "made" / "Images" / "n1" / "1.jpg")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "made" / "Images", "Images")
    url, md5 = f"{served}/images.tar", hashlib.md5((tmp_path / "images.tar").read_bytes()).hexdigest()
    named.archives((url, md5))(str(tmp_path / "root"))
    assert (tmp_path / "root" / "Images" / "n1" / "1.jpg").is_file()
    with pytest.raises(files.SourceAway, match=r"cannot be fetched: File not found or corrupted"):
        named.archives((url, "0" * 32))(str(tmp_path / "other"))


def test_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(tasks.ConfigError, match=r"task\.root: cifar100 is not at .*; task\.download: true fetches it"):
        bank_of("cifar100", tmp_path)
    with pytest.raises(tasks.ConfigError, match=r"task\.dataset: must be 'omniglot', 'cifar100'.*got 'cifar10'"):
        tasks.build({"name": "dataset", "dataset": "cifar10", "root": "/"})
