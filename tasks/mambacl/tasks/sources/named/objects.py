"""CIFAR-100, ImageNet-1K, ImageNet-R, Caltech-101, DomainNet and MS-Celeb."""

import collections

import numpy as np

from mambacl.tasks.sources.files import File, read
from mambacl.tasks.sources.folder import below, is_image, list_folder
from mambacl.tasks.sources.listing import Listing
from mambacl.tasks.sources.named.dataset import Dataset, archives, by_hand, customary_test, fetched, local

CIFAR_RECORD = 2 + 3 * 32 * 32
"""A byte for the coarse class, one for the fine class, then the pixels."""
CIFAR_TEST, CELEB_TEST, CELEB_LEAST = 40, 1000, 20

DOMAINS = {
    "clipart": ("groundtruth/clipart.zip", "cd0d8f2d77a4e181449b78ed62bccf1e"),
    "infograph": ("infograph.zip", "720380b86f9e6ab4805bb38b6bd135f8"),
    "painting": ("groundtruth/painting.zip", "1ae32cdb4f98fe7ab5eb0a351768abfd"),
    "quickdraw": ("quickdraw.zip", "bdc1b6f09f277da1a263389efe0c7a66"),
    "real": ("real.zip", "dcc47055e8935767784b7162e7c7cca6"),
    "sketch": ("sketch.zip", "658d8009644040ff7ce30bb2e820850f"),
}
"""DomainNet's cleaned archives and their MD5."""


def list_cifar100(root: str, files: list[File]) -> Listing:
    """The binary version, fine classes; training and test images together. The version for Python is a pickle, and is not read."""
    folder = f"{root}/cifar-100-binary"
    names = read(f"{folder}/fine_label_names.txt").decode().split()
    path, label, offset = [], [], []
    for part in ("train.bin", "test.bin"):
        data = read(f"{folder}/{part}")
        records = np.frombuffer(data, np.uint8, len(data) // CIFAR_RECORD * CIFAR_RECORD).reshape(-1, CIFAR_RECORD)
        path += [f"{folder}/{part}"] * len(records)
        label += [names[number] for number in records[:, 1].tolist()]
        offset.append(2 + CIFAR_RECORD * np.arange(len(records)))
    offsets = np.concatenate(offset)
    return Listing.of(
        path,
        label,
        offset=offsets,
        size=np.full(len(offsets), CIFAR_RECORD - 2),
        format="cifar",
        test=customary_test(label, CIFAR_TEST),
        where=folder,
    )


def list_imagenet1k(root: str, files: list[File]) -> Listing:
    """train/WNID/*.JPEG: 1,000 classes of up to 1,300 images."""
    return list_folder(f"{root}/train", below("train", files))


def unpack_imagenet1k(root: str) -> None:
    """Unpack the archives, which their owners give to registered users only, after checking them."""
    from mambacl.tasks.vision import datasets

    try:
        datasets.ImageNet(local(root), "train")
    except RuntimeError:
        by_hand("put ILSVRC2012_img_train.tar and ILSVRC2012_devkit_t12.tar.gz of image-net.org")(root)


def list_imagenet_r(root: str, files: list[File]) -> Listing:
    """imagenet-r/WNID/STYLE_N.jpg: 200 classes; the style (art, sketch, toy, ...) is the domain."""
    found = [name for file in files if is_image(name := file.name) and name.count("/") == 2]
    return Listing.of(
        path=[f"{root}/{name}" for name in found],
        label=[name.split("/")[1] for name in found],
        domain=[name.split("/")[2].split("_")[0] for name in found],
        where=f"{root}/imagenet-r",
    )


def list_caltech101(root: str, files: list[File]) -> Listing:
    """101 classes, without the background images."""
    folder = "caltech101/101_ObjectCategories"
    kept = [file for file in below(folder, files) if not file.name.startswith("BACKGROUND_Google/")]
    return list_folder(f"{root}/{folder}", kept)


def fetch_caltech101(root: str) -> None:
    from mambacl.tasks.vision import datasets

    fetched("caltech101", lambda: datasets.Caltech101(local(root), download=True))


def list_domainnet(root: str, files: list[File]) -> Listing:
    """DOMAIN/CLASS/*.jpg: 345 classes in six domains."""
    return list_folder(root, files, "domain/class")


def list_celeb(root: str, files: list[File]) -> Listing:
    """MS-Celeb-1M's aligned faces as ID/*.jpg; people with fewer than 20 images are left out, as the ancestors do."""
    people = [
        (file.name.split("/")[0], file.name) for file in files if file.name.count("/") == 1 and is_image(file.name)
    ]
    count = collections.Counter(person for person, _ in people)
    people = [(person, name) for person, name in people if count[person] >= CELEB_LEAST]
    label = [person for person, _ in people]
    return Listing.of(
        path=[f"{root}/{name}" for _, name in people],
        label=label,
        test=customary_test(label, CELEB_TEST),
        where=f"{root}, people with {CELEB_LEAST} images or more,",
    )


SETS = {
    "cifar100": Dataset(
        list_cifar100,
        archives(("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")),
        ("cifar-100-binary",),
    ),
    "imagenet1k": Dataset(list_imagenet1k, unpack_imagenet1k, ("train",)),
    "imagenet_r": Dataset(
        list_imagenet_r,
        archives(("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar", "a61312130a589d0ca1a8fca1f2bd3337")),
        ("imagenet-r",),
    ),
    "caltech101": Dataset(list_caltech101, fetch_caltech101, ("caltech101/101_ObjectCategories",)),
    "domainnet": Dataset(
        list_domainnet,
        archives(*((f"http://csr.bu.edu/ftp/visda/2019/multi-source/{path}", md5) for path, md5 in DOMAINS.values())),
        tuple(DOMAINS),
    ),
    "celeb": Dataset(list_celeb, by_hand("MS-Celeb-1M was withdrawn; put aligned faces as ID/*.jpg")),
}
