"""Where episodes come from: the time to sample a batch of them, and what a frozen encoder's features cost beside the encoder."""

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mambacl.platform.benchmarks.measure import Row, measure
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.family import Family
from mambacl.tasks.features import BATCH, Encode
from mambacl.tasks.frozen import load_encoder
from mambacl.tasks.images_config import FrozenConfig
from mambacl.tasks.registry import build
from mambacl.tasks.sources.listing import Entries, Listing

SIDE = 32
SIZES = ((SIDE, SIDE), (500, 375))


def rows(quick: bool) -> Iterator[Row]:
    """Of images that are made up: how long they take does not depend on what they show."""
    with tempfile.TemporaryDirectory() as folder:
        for name, channels in (("grey", ()), ("RGB", (3,))):
            yield from sampling(Path(folder), name, channels, quick)
        yield from features(Path(folder), quick)


def sampling(folder: Path, name: str, channels: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """A batch of a training step, on one core: a worker has as few."""
    tasks, shots, episodes, classes = (4, 1, 2, 40) if quick else (20, 5, 16, 1000)
    label = np.repeat(np.arange(classes), 4 * shots)
    pixels = np.random.default_rng(0).integers(0, 256, (len(label), SIDE, SIDE, *channels), np.uint8)
    np.savez(folder / f"{name}.npz", images=pixels, label=label)
    config = {"name": "images", "path": str(folder / f"{name}.npz"), "tasks": tasks, "shots": shots, "queries": shots}
    families = [build(config | changes) for changes in ({"augment": None}, {})]
    times = measure([sampler(family, episodes) for family in families], threads=1, seconds=0.0 if quick else 4.0)
    size = f"{episodes} episodes of {tasks} x ({shots} + {shots}), {SIDE} x {SIDE}, {name}"
    yield Row.of(f"{size}: without augmentation", "ms", 1e3 * times[:, 0], 1, below=10)
    yield Row.of(f"{size}: turned, moved and resized", "ms", 1e3 * times[:, 1], 1, below=70)


def sampler(family: Family, episodes: int) -> Callable[[], object]:
    """Makes other episodes at each call."""
    numbers = itertools.count(step=episodes)
    return lambda: family.episodes("meta_train", range(begin := next(numbers), begin + episodes))


def features(folder: Path, quick: bool) -> Iterator[Row]:
    """Features of small images and of photographs, decoding and resizing included, beside the encoder on what is ready.

    On all cores. Where these are never idle, a share says what decoding takes from the encoder.
    """
    config = parse(FrozenConfig, {"frozen": "efficientnet_lite0"})
    try:
        encoder = load_encoder(config)
    except ConfigError as error:
        yield Row("features", note=str(error))
        return
    batch, threads = BATCH[encoder.device.type], torch.get_num_threads()
    batches = 2 if quick else 16
    work, sources = Encode(config), [jpegs(folder, size, batch, batches) for size in SIZES]
    ready = torch.stack([encoder.transform(Image.open(path)) for path in sources[0].path[:batch]])

    def alone() -> None:
        for _ in range(batches):
            encoder(ready)

    runs = [alone, *(functools.partial(work, source) for source in sources)]
    speeds = batch * batches / measure(runs, threads, seconds=0.0 if quick else 20.0)
    yield Row.of(f"{config.frozen} alone", "images/s", speeds[:, 0], threads)
    for (width, height), speed in zip(SIZES, speeds[:, 1:].T, strict=True):
        what = f"features of {width} x {height} images"
        yield Row.of(what, "images/s", speed, threads)
        yield Row.of(f"{what}: share of the encoder's speed", "%", 100 * speed / speeds[:, 0], threads, above=90)


def jpegs(folder: Path, size: tuple[int, int], files: int, times: int) -> Entries:
    """So many files, each listed several times."""
    paths = [folder / f"{size[0]}-{number}.jpg" for number in range(files)]
    blocks = np.random.default_rng(0).integers(0, 256, (files, 12, 16, 3), np.uint8)
    for path, block in zip(paths, blocks, strict=True):
        Image.fromarray(block).resize(size, Image.Resampling.BICUBIC).save(path)
    return Listing.of([str(path) for path in paths] * times, np.zeros(files * times)).entries
