"""Arrays made of the images of a source, a chunk at a time: decoded and resized, or features of a frozen encoder.

Everything that can be done on another machine is in `Work`, which turns a part of the images into a chunk; the rest is
small and is done by whoever builds: `build_here`, or the platform with Ray Data.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import numpy as np

from mambacl.tasks.config import ConfigError
from mambacl.tasks.labels import Labels
from mambacl.tasks.sources.listing import Part
from mambacl.tasks.store import Chunk, Store

logger = logging.getLogger("mambacl")

LABELS = "labels.npz"
"""Beside an array: the labels of its rows."""
HASHES = "hashes.npy"
"""Beside an array: the hashes of the images that its rows were made from. Arrays of older builds have none."""
EVERY = 10.0
"""Seconds between lines of progress."""

Progress = Callable[[int, int, float], None]
"""Called with images done, images in all, and images a second."""


class Work(Protocol):
    """What is done with each part of the images. It is sent to other processes, so it is small until its first call."""

    threads: ClassVar[bool]
    """Whether several threads of one process do more than one."""

    @property
    def step(self) -> int:
        """Images of a chunk."""
        ...

    def __call__(self, part: Part) -> Chunk: ...

    def summary(self) -> "Summary":
        """A fresh summary of all chunks."""
        ...


class Summary(Protocol):
    """What the manifest says of the rows, gathered chunk by chunk."""

    def add(self, chunk: Chunk) -> None: ...

    def facts(self, labels: Labels) -> dict[str, Any]:
        """Fields of the manifest, among them `digest`, from the labels of all rows."""
        ...


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make one array: from what, by which work, into which store."""

    store: Store
    work: Work
    images: Callable[[], tuple[Part, Labels]]
    """All images of the source; slow, and called only for building."""
    unreadable_limit: int
    field: str
    """The config's field that names the source, for messages."""

    def complete(self) -> bool:
        """Whether the array is there, made from the files as they are now."""
        return self.store.manifest() is not None


class Build:
    """A build that is open: parts to work on, and chunks to keep. Only under the store's lock."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.store = recipe, recipe.store
        if self.store.begin():
            logger.info("%s: what was cached in %s came from other files or settings", recipe.field, self.store.folder)
        self.parts, self.labels = recipe.images()
        self.images = len(self.parts)
        self.chunks = -(-self.images // recipe.work.step)
        self.missing = [number for number in range(self.chunks) if not self.store.has(number)]
        self.began, self.at_start = time.monotonic(), self.images_done()
        self.unreadable = 0
        for number in sorted(set(range(self.chunks)) - set(self.missing)):
            self._count(self.store.chunk(number))

    def part(self, number: int) -> Part:
        """The images of a chunk."""
        step = self.recipe.work.step
        return self.parts[number * step : (number + 1) * step]

    def put(self, number: int, chunk: Chunk) -> None:
        """Keep a chunk. Raises ConfigError where too many images could not be read, BuildStopped where the disk is full."""
        self._count(chunk)
        self.store.put(number, chunk)
        self.missing.remove(number)

    def images_done(self) -> int:
        """Images in complete chunks."""
        step = self.recipe.work.step
        return self.images - sum(min(step, self.images - number * step) for number in self.missing)

    def rate(self) -> float:
        """Images a second, since this process builds."""
        return (self.images_done() - self.at_start) / max(time.monotonic() - self.began, 1e-9)

    def finish(self) -> None:
        """Join the chunks. Raises ConfigError where no image could be read."""
        if self.unreadable == self.images:
            raise ConfigError(f"{self.recipe.field}: none of the {self.images} images can be read")
        if self.unreadable:
            logger.warning("%d of %d images left out as unreadable", self.unreadable, self.images)
        summary, hashes = self.recipe.work.summary(), []

        def visit(chunk: Chunk) -> None:
            summary.add(chunk)
            hashes.append(chunk.hashes)

        def facts(kept: np.ndarray) -> dict[str, Any]:
            labels = self.labels.only(kept)
            labels.save(self.store.folder / LABELS)
            if len(found := np.concatenate(hashes)) == len(labels.label):
                np.save(self.store.folder / HASHES, found)
            return summary.facts(labels)

        self.store.finish(self.chunks, visit, facts)

    def _count(self, chunk: Chunk) -> None:
        for fault in chunk.faults:
            logger.warning("unreadable image left out: %s", fault)
        self.unreadable += len(chunk.faults)
        check_unreadable(self.recipe, self.unreadable, chunk.faults[-1] if chunk.faults else "")


def read_hashes(store: Store) -> np.ndarray | None:
    """The hashes of the images of a complete array, where they were kept."""
    path = store.folder / HASHES
    return np.load(path, allow_pickle=False) if path.is_file() else None


def check_unreadable(recipe: Recipe, count: int, fault: str) -> None:
    """Raise ConfigError where more images were left out than the config allows."""
    if count > recipe.unreadable_limit:
        raise ConfigError(
            f"{recipe.field}: unreadable image {fault}, number {count}; "
            f"task.unreadable_limit allows {recipe.unreadable_limit}"
        )


def build_here(recipe: Recipe, progress: Progress | None = None) -> None:
    """Make the array in this process, from where an earlier build ended; nothing is done where it is complete."""
    with recipe.store.locked():
        if recipe.complete():
            return
        build, told = Build(recipe), time.monotonic()
        logger.info("preparing %d images once, into %s", build.images, recipe.store.folder)
        for number, chunk in _computed(build):
            build.put(number, chunk)
            if progress:
                progress(build.images_done(), build.images, build.rate())
            elif time.monotonic() - told > EVERY:
                told = time.monotonic()
                logger.info("%d of %d images, %.0f a second", build.images_done(), build.images, build.rate())
        build.finish()


def _computed(build: Build) -> Iterator[tuple[int, Chunk]]:
    """The missing chunks in order; a few are in flight at a time, which bounds the memory."""
    work, todo = build.recipe.work, list(build.missing)
    workers = len(os.sched_getaffinity(0)) if work.threads else 1
    if workers == 1:
        yield from ((number, work(build.part(number))) for number in todo)
        return
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        flying: collections.deque = collections.deque()
        try:
            for number in todo:
                flying.append((number, pool.submit(work, build.part(number))))
                if len(flying) > workers:
                    first, future = flying.popleft()
                    yield first, future.result()
            while flying:
                first, future = flying.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
