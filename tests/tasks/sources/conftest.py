"""Small image files whose pixels tell what they are."""

import io

import numpy as np
import pytest
from PIL import Image

CLASSES, IMAGES = 12, 4
SIZES = {"tasks": 1, "shots": 2, "queries": 1, "augment": None, "size": 8}


def png(c, n, domain=0):
    """A PNG file's bytes: red tells the class, green the number of the image, blue the domain."""
    file = io.BytesIO()
    Image.new("RGB", (20, 14), (c, n, domain)).save(file, "PNG")
    return file.getvalue()


def identities(images):
    """(class, number, domain) of every image (n, 3, height, width)."""
    return [tuple(int(v) for v in image[:, 0, 0]) for image in images]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def in_domains(classes=CLASSES, images=IMAGES, domains=("clipart", "quickdraw", "real")):
    """(domain name, class, number, bytes) of images of every class in every domain."""
    return [
        (domain, c, n, png(c, n, d)) for d, domain in enumerate(domains) for c in range(classes) for n in range(images)
    ]


def np_labels(classes=CLASSES, images=IMAGES):
    return np.repeat(np.arange(classes), images)
