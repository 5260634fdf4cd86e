"""Where episodes come from: the time to sample a batch of them, and what a frozen encoder's features cost beside the encoder."""

import functools
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mambacl.platform.benchmarks.measure import Row, Scope, measure
from mambacl.platform.training.ray_worker import use_threads
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.family import Family
from mambacl.tasks.features import BATCH, Encode, loaded
from mambacl.tasks.frozen import load_encoder
from mambacl.tasks.images_config import FrozenConfig
from mambacl.tasks.registry import build
from mambacl.tasks.sources.listing import Entries, Listing

SIDE = 32
SIZES = ((SIDE, SIDE), (500, 375))


def rows(scope: Scope) -> Iterator[Row]:
    """Of images that are made up: how long they take does not depend on what they show."""
    with tempfile.TemporaryDirectory() as folder:
        for name, channels in (("grey", ()), ("RGB", (3,))):
            yield from sampling(Path(folder), name, channels, scope)
        yield from features(Path(folder), scope)


def sampling(folder: Path, name: str, channels: tuple[int, ...], scope: Scope) -> Iterator[Row]:
    """A batch of a training step, on one core: a worker has as few."""
    tasks, shots, episodes, classes = (4, 1, 2, 40) if scope == "tiny" else (20, 5, 16, 1000)
    label = np.repeat(np.arange(classes), 4 * shots)
    pixels = np.random.default_rng(0).integers(0, 256, (len(label), SIDE, SIDE, *channels), np.uint8)
    np.savez(folder / f"{name}.npz", images=pixels, label=label)
    config = {"name": "images", "path": str(folder / f"{name}.npz"), "tasks": tasks, "shots": shots, "queries": shots}
    families = [build(config | changes) for changes in ({"augment": None}, {})]
    times = measure([sampler(family, episodes) for family in families], 1, scope, seconds=4.0)
    size = f"{episodes} episodes of {tasks} x ({shots} + {shots}), {SIDE} x {SIDE}, {name}"
    yield Row.of(f"{size}: without augmentation", "ms", 1e3 * times[:, 0], 1, below=10)
    yield Row.of(f"{size}: turned, moved and resized", "ms", 1e3 * times[:, 1], 1, below=70)


def sampler(family: Family, episodes: int) -> Callable[[], object]:
    """Makes other episodes at each call."""
    numbers = itertools.count(step=episodes)
    return lambda: family.episodes("meta_train", range(begin := next(numbers), begin + episodes))


def features(folder: Path, scope: Scope) -> Iterator[Row]:
    """Features of small images and of photographs, decoding and resizing included, beside the encoder on what is ready.

    By one process for each GPU, or for each core, as Ray Data's actors do it. Where these are never idle, a share says what
    decoding takes from the encoder.
    """
    config = parse(FrozenConfig, {"frozen": "efficientnet_lite0"})
    try:
        encoder = load_encoder(config)
    except ConfigError as error:
        yield Row("features", note=str(error))
        return
    batch, cores = BATCH[encoder.device.type], len(os.sched_getaffinity(0))
    workers = torch.cuda.device_count() or cores
    batches, parts = {"full": (8, 4 * workers), "quick": (8, workers), "tiny": (2, workers)}[scope]
    sources = [jpegs(folder, size, batch, batches) for size in SIZES]
    ready = torch.stack([encoder.transform(Image.open(path)) for path in sources[0].path[:batch]]).numpy()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=use_threads, initargs=(cores // workers,)) as pool:

        def run(work: Callable[[Any], object], part: Any) -> Callable[[], object]:
            return lambda: list(pool.map(work, [part] * parts))

        alone = run(functools.partial(encode_alone, config, batches), ready)
        runs = [alone, *(run(functools.partial(encode, config), source) for source in sources)]
        speeds = batch * batches * parts / measure(runs, 1, scope, seconds=30.0)
    yield Row.of(f"{config.frozen} alone", "images/s", speeds[:, 0], cores)
    for (width, height), speed in zip(SIZES, speeds[:, 1:].T, strict=True):
        what = f"features of {width} x {height} images"
        yield Row.of(what, "images/s", speed, cores)
        yield Row.of(f"{what}: share of the encoder's speed", "%", 100 * speed / speeds[:, 0], cores, above=90)


def encode_alone(config: FrozenConfig, times: int, ready: np.ndarray) -> None:
    """Put one batch through the encoder, several times."""
    encoder = loaded(config)
    for _ in range(times):
        encoder(torch.from_numpy(ready))


def encode(config: FrozenConfig, part: Entries) -> int:
    """Make the features of files, and leave them: what they weigh on the way back is nothing beside them."""
    return len(Encode(config)(part).rows)


def jpegs(folder: Path, size: tuple[int, int], files: int, times: int) -> Entries:
    """So many files, each listed several times."""
    paths = [folder / f"{size[0]}-{number}.jpg" for number in range(files)]
    blocks = np.random.default_rng(0).integers(0, 256, (files, 12, 16, 3), np.uint8)
    for path, block in zip(paths, blocks, strict=True):
        Image.fromarray(block).resize(size, Image.Resampling.BICUBIC).save(path)
    return Listing.of([str(path) for path in paths] * times, np.zeros(files * times)).entries
