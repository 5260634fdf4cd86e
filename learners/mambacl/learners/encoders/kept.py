"""Encoders of trained learners as files by themselves: weights, with what they are made from in the file's header."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mambacl.learners.encoders.config import EncoderConfig
from mambacl.learners.encoders.encoders import build_encoder
from mambacl.learners.learner import Learner
from mambacl.tasks.config import Config, ConfigError, parse
from mambacl.tasks.episode import Spec
from mambacl.tasks.frozen import FrozenEncoder
from mambacl.tasks.sources.decode import Fit, shrink


class Kept(Config):
    """What an encoder is made from."""

    encoder: EncoderConfig | None
    """None for that which learners have by default."""
    width: int
    """Numbers of a feature vector."""
    spec: Spec
    """Of the task family that it was trained on."""
    fit: Fit
    """How images of that family were brought to their size."""


def keep(learner: Learner, kept: Kept, path: Path) -> None:
    """Write the encoder of a learner to a safetensors file."""
    encoder = learner.encoder
    assert isinstance(encoder, nn.Module)
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, path, metadata={"mambacl": kept.model_dump_json()})


def load(path: Path) -> FrozenEncoder:
    """The encoder of such a file, for images of any size. Raises ConfigError where the file is none."""
    with safe_open(path, "pt") as file:
        metadata, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    if "mambacl" not in metadata:
        raise ConfigError(f"task.encoder.weights: {path} holds no encoder of a learner")
    kept: Kept = parse(Kept, json.loads(metadata["mambacl"]))
    if kept.spec.input != "image":
        raise ConfigError(
            f"task.encoder.frozen: the encoder of {path} reads vectors of {kept.spec.shape[0]} numbers, and no images"
        )
    encoder = build_encoder(kept.encoder, kept.spec, kept.width)
    encoder.load_state_dict(weights)
    return FrozenEncoder(encoder, Pixels(kept.spec.shape, kept.fit))


class Pixels:
    """An image as the learner's own family had it: bytes (channels, side, side)."""

    def __init__(self, shape: tuple[int, ...], fit: Fit) -> None:
        self.channels, self.side, _ = shape
        self.fit: Fit = fit

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(shrink(image, self.side, self.channels == 1, self.fit)))
