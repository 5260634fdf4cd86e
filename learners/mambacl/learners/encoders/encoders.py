"""Encoders: an example of any shape to a vector of width D, each example by itself.

No layer has batch statistics: in meta-training they would let queries see each other and the stream see its queries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mambacl.learners.encoders.config import CnnConfig, EncoderConfig, MlpConfig
from mambacl.learners.fused import Linear, RMSNorm, conv, group_norm
from mambacl.learners.fused.conv import GROUP
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Spec


def build_encoder(config: EncoderConfig | None, spec: Spec, width: int) -> nn.Module:
    """The encoder (n, *spec.shape) -> (n, width). Raises ConfigError where it does not fit the input."""
    config = config or (CnnConfig() if spec.input == "image" else MlpConfig())
    if isinstance(config, MlpConfig):
        return Mlp(int(torch.Size(spec.shape).numel()), width, config.layers)
    if spec.input != "image":
        raise ConfigError("learner.encoder.name: 'cnn' needs images; allowed for vectors: mlp")
    return Cnn(spec, width, config)


def flat_size(where: str, spec: Spec, channels: Sequence[int], first_stride: int) -> int:
    """Numbers of an image behind convolutions, of which all but the first halve its side, and that one if its stride is 2.

    Raises ConfigError in the name of `where` for images that are too small.
    """
    halvings = len(channels) - (first_stride == 1)
    if min(spec.shape[1:]) < 2**halvings:
        raise ConfigError(
            f"{where}.channels: {halvings} halvings need images of at least {2**halvings} pixels, "
            f"got {spec.shape[1]} x {spec.shape[2]}"
        )
    height, across = (-(-side // 2**halvings) for side in spec.shape[1:])
    return channels[-1] * height * across


def as_float(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes 0..255 to -1..1; vectors as they are."""
    return x.to(dtype) / 127.5 - 1 if x.dtype == torch.uint8 else x.to(dtype)


class Cnn(nn.Module):
    """Convolutions, group normalisation in groups of 8 channels, then a linear map to a vector of length sqrt(D).

    No rectifier follows the last normalisation and the linear map has no bias: what all images share tells no classes apart,
    and a fresh learner can lower its loss by making that part the largest. Meta-training then stays on its plateau.
    """

    def __init__(self, spec: Spec, width: int, config: CnnConfig) -> None:
        super().__init__()
        flat = flat_size("learner.encoder", spec, config.channels, config.first_stride)
        layers, before, stride = [], spec.shape[0], config.first_stride
        for after in config.channels:
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(after // GROUP, after),
                nn.ReLU(),
            ]
            before, stride = after, 2
        self.convolutions = nn.Sequential(*layers[:-1])
        self.project = Linear(flat, width, bias=False)
        self.norm = RMSNorm(width)

    def confine(self, features: int) -> None:
        """Leave all but the first numbers of fresh vectors zero."""
        nn.init.zeros_(self.project.weight[features:])

    def forward(self, x: Tensor) -> Tensor:
        x = as_float(x, self.project.weight.dtype).movedim(1, -1).contiguous()
        layers = list(self.convolutions)
        norms = [None, *layers[1::3]]  # each is computed with the convolution behind it, and the last one has none
        for convolution, norm in zip(layers[::3], norms, strict=False):
            x = conv(x, convolution.weight, norm, convolution.stride[0])  # type: ignore[arg-type]
        return self.norm(self.project(group_norm(x.movedim(-1, 1), layers[-1]).flatten(1)))  # type: ignore[arg-type]


class Mlp(nn.Module):
    """Linear, layer normalisation, ReLU; the last layer is linear alone, to a vector of length sqrt(D)."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        before, parts = inputs, []
        for _ in range(layers - 1):
            parts += [Linear(before, width), nn.LayerNorm(width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*parts, Linear(before, width))
        self.norm = RMSNorm(width)

    def confine(self, features: int) -> None:
        """Leave all but the first numbers of fresh vectors zero."""
        nn.init.zeros_(self.layers[-1].weight[features:])  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layers(as_float(x, self.norm.weight.dtype).flatten(1)))
