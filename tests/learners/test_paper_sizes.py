"""The sizes of the paper's learners and of its ancestor's (Lee et al., 2023) can be had, by counted parameters and states.

They are built without memory (device `meta`), for images of 1 x 32 x 32 and 20 label codes.
"""

import itertools

import pytest
import torch

from mambacl import learners
from mambacl.learners.encoders.config import CnnConfig
from mambacl.learners.encoders.encoders import build_encoder
from mambacl.tasks.episode import Spec

IMAGES = Spec(input="image", shape=(1, 32, 32), output="classification", size=20, digest="")
VECTORS = Spec(input="vector", shape=(512,), output="classification", size=20, digest="")
CNN = {"name": "cnn", "channels": (32, 64, 128, 256, 256), "first_stride": 1}

TRANSFORMER = {"name": "transformer", "dropout": 0.1}
LINEAR = {
    "layers": 4,
    "width": 512,
    "heads": 8,
    "expand": 8,
    "short_conv": 0,
    "positions": "sinusoidal",
    "dropout": 0.1,
}
SEQUENCE = {
    "tf": TRANSFORMER | {"layers": 4, "width": 512, "heads": 8},
    "tf_s": TRANSFORMER | {"layers": 2, "width": 256, "heads": 4},
    "tf_m": TRANSFORMER | {"layers": 2, "width": 512, "heads": 8},
    "tf_xl": TRANSFORMER | {"layers": 4, "width": 1024, "heads": 16},
    "linear_tf": {"name": "linear_attention", "state_size": 512} | LINEAR,
    "performer": {"name": "performer", "state_size": 128, "key_width": 128} | LINEAR,
    "mambacl_3x16": {"name": "mamba", "layers": 3, "width": 512, "state_size": 16},
    "mambacl_4x16": {"name": "mamba", "layers": 4, "width": 512, "state_size": 16},
    "mambacl_2x128": {"name": "mamba", "layers": 2, "width": 512, "state_size": 128},
}
CORE = {"tf": 8.40, "tf_s": 1.05, "tf_m": 4.20, "tf_xl": 33.6, "linear_tf": 37.8, "performer": 25.2} | {
    "mambacl_3x16": 5.09,
    "mambacl_4x16": 6.78,
    "mambacl_2x128": 4.08,
}
"""Millions of parameters of the blocks, without encoder, embedding and head."""
STATE = {"tf": 1024 * 200, "linear_tf": 8 * 512 * 513, "performer": 8 * 128 * 513, "mambacl_3x16": 1024 * (16 + 3)}
"""Numbers that a layer holds after 100 examples."""


def build(config, spec=IMAGES):
    with torch.device("meta"):
        return learners.build(config, spec)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", SEQUENCE)
def test_sequence_learners(name):
    learner = build(SEQUENCE[name])
    assert count(learner.blocks) == pytest.approx(1e6 * CORE[name], rel=0.01)
    if name in STATE:
        assert learner.state_floats(100) == learner.layers * STATE[name]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("N", [16, 32, 64, 128, 256])
def test_mamba_of_any_depth_and_state(layers, N):
    learner = build({"name": "mamba", "layers": layers, "width": 512, "state_size": N})
    assert count(learner.blocks) == pytest.approx(layers * (1_646_592 + 3072 * N), rel=0.01)


def test_encoder():
    encoder = build_encoder(CnnConfig.model_validate(CNN), IMAGES, 512)
    assert count(encoder.convolutions) == pytest.approx(0.98e6, rel=0.01)
    assert encoder.project.weight.shape == (512, 1024)
    halves = IMAGES.model_copy(update={"shape": (1, 16, 32)})
    assert build_encoder(CnnConfig.model_validate(CNN), halves, 512).project.weight.shape == (512, 512)


@pytest.mark.parametrize(("hidden", "layers"), [(512, 2), (2048, 4)])
def test_oml(hidden, layers):
    """Its fast network takes 1,024 numbers, as many as the ancestors' convolutions give; here they come through one more map."""
    learner = build({"name": "oml", "width": 1024, "hidden": hidden, "fast_layers": layers, "encoder": CNN})
    sizes = [1024, *[hidden] * (layers - 1), 20]
    assert learner.state_floats(100) == sum(a * b for a, b in itertools.pairwise(sizes)) + hidden * (layers - 1)
    assert layers > 2 or learner.state_floats(100) == 535_040


def test_anml():
    """All of the prediction network is fast: biases, but no norms, in its convolutions, and a linear map of what the gate leaves."""
    channels = CNN["channels"]
    learner = build({"name": "anml", "channels": channels, "first_stride": 1})
    filters = sum(9 * a * b for a, b in itertools.pairwise((1, *channels))) + sum(channels)
    assert learner.state_floats(100) == filters + 1024 * 20 + 20
    assert count(learner.gate) == filters + 2 * sum(channels)
    on_vectors = build({"name": "anml", "hidden": 512}, VECTORS)
    assert on_vectors.state_floats(100) == 3 * (512 * 512 + 512) + 512 * 20 + 20


@pytest.mark.parametrize(("name", "parts"), [("prototypes", 1), ("gemcl", 2)])
def test_classes_in_closed_form(name, parts):
    """A mean, and with GeMCL a sum of squares, of 512 features a class; and how many examples it had."""
    learner = build({"name": name, "width": 512, "encoder": CNN})
    assert learner.state_floats(100) == parts * 20 * 512 + 20


@pytest.mark.parametrize("name", SEQUENCE)
def test_frozen_features_go_through_one_map(name):
    learner = build(SEQUENCE[name] | {"encoder": {"name": "mlp", "layers": 1}}, VECTORS)
    width = SEQUENCE[name]["width"]
    assert count(learner.encoder) == 512 * width + 2 * width
