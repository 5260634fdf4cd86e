"""Features of all images by a frozen encoder, computed once."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mambacl.tasks.frozen import Facts, FrozenEncoder, facts_of, load_encoder
from mambacl.tasks.images_config import FrozenConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.sketches import hash_of_picture
from mambacl.tasks.sources.listing import Part
from mambacl.tasks.store import Chunk

VERSION = 1
"""Of what is done around the encoders: raise it when features change, and old ones are not used."""
BATCH = {"cpu": 4, "cuda": 128}
"""Images that go through the encoder together: on a CPU what stays in its caches is fastest."""
CHUNK = 256


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Of all images' features. Noise levels mean nothing without them."""

    norm: float
    """Mean length of a feature vector."""
    mean: np.ndarray
    """(F,) float64."""
    std: np.ndarray
    """(F,) float64, of each dimension."""


@dataclasses.dataclass(frozen=True)
class Encode:
    """Work: a part's images as features (k, F). The model is loaded at the first call, once in a process."""

    config: FrozenConfig

    threads: ClassVar[bool] = False

    @property
    def step(self) -> int:
        return CHUNK

    @functools.cached_property
    def facts(self) -> Facts:
        return facts_of(self.config)

    @property
    def key(self) -> dict[str, Any]:
        """What decides the features, besides the source."""
        return {
            "features": VERSION,
            "encoder": self.config.frozen,
            "weights": self.facts.sha256,
            "transform": self.facts.transform,
            "dtype": self.config.dtype,
        }

    def __call__(self, part: Part) -> Chunk:
        encoder = loaded(self.config)
        content, kept, faults, rows, hashes = hashlib.sha256(), [], [], [], []

        def inputs() -> Iterator[Image.Image]:
            for image, fault in part.pictures(content):
                kept.append(image is not None)
                if image is None:
                    faults.append(fault)
                else:
                    hashes.append(hash_of_picture(image))
                    yield image

        for batch in _batches(encoder, inputs()):
            rows.append(encoder(batch).numpy().astype(self.config.dtype))
        found = np.concatenate(rows) if rows else np.zeros((0, 0), self.config.dtype)
        return Chunk(found, np.array(kept), faults, content.hexdigest(), np.array(hashes, np.uint64))

    def summary(self) -> "FeatureSummary":
        return FeatureSummary(self.key)


def _batches(encoder: FrozenEncoder, images: Iterator[Image.Image]) -> Iterator[Tensor]:
    """Batches (n, 3, side, side) of transformed images, channels last.

    The next one is made while the encoder works on the last; where both would share one core, one after the other.
    """

    def transformed(image: Image.Image) -> Tensor:
        return encoder.transform(image.convert("RGB")).permute(1, 2, 0)

    def batches(each: Callable[..., Iterator[Tensor]]) -> Iterator[Iterator[Tensor]]:
        while batch := list(itertools.islice(images, BATCH[encoder.device.type])):
            yield each(transformed, batch)
        yield iter(())

    threads = torch.get_num_threads()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        alone = threads == 1 and encoder.device.type == "cpu"
        for batch, _ in itertools.pairwise(batches(map if alone else pool.map)):
            yield torch.stack(list(batch)).permute(0, 3, 1, 2)


def loaded(config: FrozenConfig) -> FrozenEncoder:
    """The encoder, which stays in the process for its next part."""
    return _loaded(config.model_dump_json())


@functools.lru_cache(maxsize=1)
def _loaded(config: str) -> FrozenEncoder:
    return load_encoder(FrozenConfig.model_validate_json(config))


class FeatureSummary:
    """Digest of what the features are computed from, which is the same on every machine, and their statistics."""

    def __init__(self, key: dict[str, Any]) -> None:
        self.content = hashlib.sha256(repr(sorted(key.items())).encode())
        self.rows, self.norms = 0, 0.0
        self.sum: Any = 0.0
        self.squares: Any = 0.0

    def add(self, chunk: Chunk) -> None:
        self.content.update(chunk.content.encode())
        rows = chunk.rows.astype(np.float64)
        if len(rows):
            self.rows += len(rows)
            self.norms += float(np.linalg.norm(rows, axis=1).sum())
            self.sum = self.sum + rows.sum(0)
            self.squares = self.squares + (rows**2).sum(0)

    def facts(self, labels: Labels) -> dict[str, Any]:
        content = self.content.copy()
        for part in (labels.count, np.unique(labels.group, return_inverse=True)[1]):
            content.update(np.ascontiguousarray(part, np.int64).data)
        mean = self.sum / self.rows
        std = np.sqrt(np.maximum(self.squares / self.rows - mean**2, 0))
        statistics = {"norm": self.norms / self.rows, "mean": mean.tolist(), "std": std.tolist()}
        return {"digest": content.hexdigest(), "statistics": statistics}


def statistics_of(manifest: dict[str, Any]) -> FeatureStatistics | None:
    """The statistics of an array of features; None for one of images."""
    found = manifest.get("statistics")
    return found and FeatureStatistics(found["norm"], np.array(found["mean"]), np.array(found["std"]))
