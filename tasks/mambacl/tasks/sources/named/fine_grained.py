"""CUB-200-2011, Stanford Cars, Stanford Dogs, FGVC-Aircraft and Flowers-102."""

from collections.abc import Callable, Sequence
from typing import Any

from mambacl.tasks.config import ConfigError
from mambacl.tasks.sources.files import File, read
from mambacl.tasks.sources.folder import below, list_folder
from mambacl.tasks.sources.listing import Listing
from mambacl.tasks.sources.named.dataset import Dataset, archives, by_hand, fetched, local


def list_cub200(root: str, files: list[File]) -> Listing:
    """CUB_200_2011 with its lists images.txt, image_class_labels.txt and classes.txt; both official parts together."""
    folder = f"{root}/CUB_200_2011"
    path, number, name = (_pairs(f"{folder}/{list_}.txt") for list_ in ("images", "image_class_labels", "classes"))
    return Listing.of(
        path=[f"{folder}/images/{image}" for image in path.values()],
        label=[name[number[image]] for image in path],
        where=folder,
    )


def _pairs(path: str) -> dict[str, str]:
    """The lines `key value` of a list."""
    return dict(line.split(maxsplit=1) for line in read(path).decode().splitlines() if line.strip())


def list_dogs(root: str, files: list[File]) -> Listing:
    """Images/WNID-breed/*.jpg: 120 classes."""
    return list_folder(f"{root}/Images", below("Images", files))


def listed_by_torchvision(kind: str, parts: Sequence[str]) -> Callable[[str, list[File]], Listing]:
    """A `list` of the images of a torchvision data set, all of its parts together."""

    def list_images(root: str, files: list[File]) -> Listing:
        path, label = [], []
        for part in parts:
            images = _open(kind, root, split=part)
            found = [images[number] for number in range(len(images))]  # the loader `str` makes this a list of paths
            path += [where for where, _ in found]
            label += [images.classes[number] for _, number in found]
        return Listing.of(path, label, where=root)

    return list_images


def fetched_by_torchvision(kind: str) -> Callable[[str], None]:
    """A `fetch` of a torchvision data set."""

    def fetch(root: str) -> None:
        fetched(kind, lambda: _open(kind, root, download=True))

    return fetch


def _open(kind: str, root: str, **options: Any) -> Any:
    from mambacl.tasks.vision import datasets

    try:
        return getattr(datasets, kind)(local(root), loader=str, **options)
    except (RuntimeError, ValueError, OSError) as error:
        if options.get("download"):
            raise
        raise ConfigError(f"task.root: {root}: {' '.join(str(error).split())}") from None


SETS = {
    "cub200": Dataset(
        list_cub200,
        archives(
            ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78")
        ),
        ("CUB_200_2011",),
    ),
    "cars": Dataset(
        listed_by_torchvision("StanfordCars", ("train", "test")),
        by_hand("its owners' page is gone; put cars_train, cars_test, devkit and cars_test_annos_withlabels.mat"),
        ("stanford_cars",),
    ),
    "dogs": Dataset(
        list_dogs,
        archives(("http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar", "1bb1f2a596ae7057f99d7d75860002ef")),
        ("Images",),
    ),
    "aircraft": Dataset(
        listed_by_torchvision("FGVCAircraft", ("trainval", "test")),
        fetched_by_torchvision("FGVCAircraft"),
        ("fgvc-aircraft-2013b",),
    ),
    "flowers102": Dataset(
        listed_by_torchvision("Flowers102", ("train", "val", "test")),
        fetched_by_torchvision("Flowers102"),
        ("flowers-102",),
    ),
}
