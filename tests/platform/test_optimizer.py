"""Weight decay falls on matrices that tokens are multiplied with, and on nothing else. A new parameter has to be put here."""

import pytest

from mambacl import learners, tasks
from mambacl.learners.registry import CONFIGS
from mambacl.platform.config import TrainConfig
from mambacl.platform.training.optimizer import build_optimizer

SMALL = {"layers": 1, "width": 16, "heads": 2, "state_size": 4, "hidden": 8}
IN_OUT = {"blocks.0.mixer.in_proj.weight", "blocks.0.mixer.out_proj.weight"}
DELTA = IN_OUT | {"blocks.0.mixer.strength.weight", "blocks.0.mixer.gate.weight"}
FEED_FORWARD = {"blocks.0.feed_forward.1.weight", "blocks.0.feed_forward.3.weight"}
MAMBA = IN_OUT | {"blocks.0.mixer.x_proj.weight", "blocks.0.mixer.dt_proj.weight"}
MLSTM = IN_OUT | {f"blocks.0.mixer.{name}.weight" for name in ("query_key", "value", "gates")}
PROJECT, HEAD = {"encoder.project.weight"}, {"head.weight"}
MLP = {"encoder.layers.0.weight", "encoder.layers.3.weight"}

ON_IMAGES = {
    "mamba": PROJECT | MAMBA | HEAD,
    "mamba2": PROJECT | IN_OUT | HEAD,
    "mamba3": PROJECT | IN_OUT | HEAD,
    "attention": PROJECT | IN_OUT | FEED_FORWARD | HEAD,
    "transformer": PROJECT | IN_OUT | FEED_FORWARD | HEAD,
    "linear_attention": PROJECT | IN_OUT | FEED_FORWARD | HEAD,
    "performer": PROJECT | IN_OUT | FEED_FORWARD | HEAD,
    "gated_deltanet": PROJECT | DELTA | {"blocks.0.mixer.step.weight"} | FEED_FORWARD | HEAD,
    "kda": PROJECT | DELTA | {"blocks.0.mixer.step.0.weight", "blocks.0.mixer.step.1.weight"} | FEED_FORWARD | HEAD,
    "mlstm": PROJECT | MLSTM | HEAD,
    "mesanet": PROJECT | DELTA | {"blocks.0.mixer.step.weight"} | FEED_FORWARD | HEAD,
    "hybrid": PROJECT | {name.replace("blocks.0", "blocks.1") for name in IN_OUT | FEED_FORWARD} | MAMBA | HEAD,
    "oml": PROJECT | {"weights.0", "weights.1"},
    "anml": HEAD,
    "prototypes": PROJECT,
    "gemcl": PROJECT,
}
ON_VECTORS = {
    "mamba": MLP | {"label.layers.0.weight", "label.layers.3.weight"} | MAMBA | HEAD,
    "oml": MLP | {"weights.0", "weights.1"},
    "anml": {f"{net}.weight" for net in ("fast.0", "fast.2", "fast.4", "gate.0", "gate.3", "gate.6", "head")},
    "alpaca": MLP | {"mean"},
}
EXPERTS = {"feed_forward": 2, "experts": {"count": 4}}
ROUTED = {f"blocks.0.experts.{name}" for name in ("router.weight", "up", "down")}


def decayed(name, family, **fields):
    """Names of the parameters that are decayed; all others are in the group that is not."""
    small = {field: SMALL[field] for field in SMALL if field in CONFIGS[name].model_fields}
    learner = learners.build({"name": name, **small, **fields}, tasks.build({"name": family, "tasks": 4}).spec)
    groups = build_optimizer(learner, TrainConfig(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(learner.parameters()))
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    return {names[id(parameter)] for parameter in groups[0]["params"]}


def test_every_learner_with_parameters_is_here():
    trained = {name for name, kind in CONFIGS.items() if kind.scale}
    assert trained == ON_IMAGES.keys() | ON_VECTORS.keys()


@pytest.mark.parametrize("name", ON_IMAGES)
def test_of_learners_on_images(name):
    assert decayed(name, "glyphs") == ON_IMAGES[name]


@pytest.mark.parametrize("name", ON_VECTORS)
def test_of_learners_on_vectors(name):
    assert decayed(name, "sine") == ON_VECTORS[name]


def test_of_parts_that_are_an_option():
    assert decayed("mamba", "glyphs", **EXPERTS) == PROJECT | MAMBA | ROUTED | HEAD
    without = decayed("mamba", "glyphs", decays=False, selective_steps=False, gate=False)
    assert without == PROJECT | MAMBA - {"blocks.0.mixer.dt_proj.weight"} | HEAD
