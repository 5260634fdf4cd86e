"""Where episodes come from: the time to sample a batch of them, and what a frozen encoder's features cost beside the encoder."""

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
from mambacl.tasks.sources.listing import Listing

SIDE = 32
PHOTOGRAPH = (500, 375)


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
    """Features of photographs, decoding and resizing included, beside the encoder on a batch that is ready; on all cores."""
    config = parse(FrozenConfig, {"frozen": "efficientnet_lite0"})
    try:
        encoder = load_encoder(config)
    except ConfigError as error:
        yield Row("features", note=str(error))
        return
    batch, threads = BATCH[encoder.device.type], torch.get_num_threads()
    batches = 2 if quick else 32
    size = (64, 48) if quick else PHOTOGRAPH
    blocks = np.random.default_rng(0).integers(0, 256, (batch, 12, 16, 3), np.uint8)
    for number, block in enumerate(blocks):
        Image.fromarray(block).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    paths = [str(folder / f"{number}.jpg") for number in range(batch)] * batches
    photographs = Listing.of(paths, np.zeros(len(paths))).entries
    ready = torch.stack([encoder.transform(Image.open(path)) for path in paths[:batch]])

    def alone() -> None:
        for _ in range(batches):
            encoder(ready)

    work = Encode(config)
    times = measure([alone, lambda: work(photographs)], threads, seconds=0.0 if quick else 20.0)
    speed = len(paths) / times
    what = f"{config.frozen}, photographs of {size[0]} x {size[1]}"
    yield Row.of(f"{what}: the encoder alone", "images/s", speed[:, 0], threads)
    yield Row.of(f"{what}: building features", "images/s", speed[:, 1], threads)
    yield Row.of(f"{what}: share of the encoder's speed", "%", 100 * speed[:, 1] / speed[:, 0], threads, above=90)
