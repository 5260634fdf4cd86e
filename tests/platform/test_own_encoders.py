"""A trained model's encoder as the frozen encoder of other learners: its features, and that it knows no class that is to be new."""

import json

import pytest
import torch

from mambacl import tasks
from mambacl.learners.registry import build
from mambacl.platform.arguments import parse_experiment
from mambacl.platform.commands import train
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.cost import built
from mambacl.platform.data.own_encoders import with_own_encoder
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.command import check
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse

TASK = {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1, "vocabulary": 3}
TINY = {
    "name": "tiny", "task": TASK,
    "train": {"steps": 2, "batch": 2, "warmup": 0, "evaluate_every": 2, "evaluate_episodes": 4, "curriculum": []},
    "resources": {"trainer": "inline"},
}  # fmt: skip


def run(config, folder):
    """Train in this process, and give the folder."""
    open_record(config, folder)
    meta_train(config, folder, Worker(), lambda saved: None, lambda step, point: False)
    close_record(folder, None)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder of a prototype network."""
    root = tmp_path_factory.mktemp("encoder")
    learner = {"name": "prototypes", "width": 24, "encoder": {"name": "cnn", "channels": [8, 16]}}
    config = parse(ExperimentConfig, TINY | {"learner": learner, "storage": {"root": str(root)}})
    return run(config, root / "own")


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """For all tests here: features are computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAMBACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def reader(trained, **task):
    """An experiment on the features of that network."""
    encoder = {"frozen": str(trained), "dtype": "float32"}
    content = TINY | {
        "task": TASK | {"encoder": encoder} | task,
        "learner": {"name": "mamba", "width": 16, "layers": 1},
    }
    return with_own_encoder(parse(ExperimentConfig, content | {"storage": {"root": str(trained.parent)}}))


def test_features_are_what_the_model_makes_of_the_images(trained):
    found, images = tasks.build(reader(trained).task.model_dump()), tasks.build(TASK | {"augment": None})
    last = checkpoint.best(trained)
    model = build(last.config.learner, last.progress.spec)
    model.load_state_dict(last.weights)
    episode, pixels = found.episodes("meta_test", range(4)), images.episodes("meta_test", range(4))
    assert found.spec.shape == (24,)
    with torch.no_grad():
        expected = model.encoder(pixels.support_x.flatten(0, 1)).unflatten(0, pixels.support_x.shape[:2])
    assert torch.equal(episode.support_y, pixels.support_y)
    assert torch.allclose(episode.support_x, expected, atol=1e-5)


def test_a_learner_is_trained_on_them(trained, tmp_path):
    last = checkpoint.best(run(reader(trained), tmp_path / "reader"))
    assert last.progress.step == 2
    assert built(last.config)[1].spec.shape == (24,)


def test_the_command_line_takes_a_folder(trained):
    config, _ = parse_experiment("train", train.Options, ["quickstart", "--task.encoder", f"{{frozen: {trained}}}"])
    assert config.task.encoder.frozen == "mambacl/prototypes"


def test_an_encoder_that_met_classes_of_meta_test_is_refused(trained):
    with pytest.raises(
        ConfigError, match=r"^task.encoder.frozen: the model met classes of meta_val before \(\d+ in its meta_train"
    ):
        check(reader(trained, seed=1))
    check(reader(trained))


def test_mistakes_are_one_line(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"^task.encoder.weights: belongs to a library's encoder"):
        reader(trained, encoder={"frozen": str(trained), "weights": "x.safetensors"})
    with pytest.raises(ConfigError, match="is no checkpoint or run folder"):
        reader(trained, encoder={"frozen": str(tmp_path)})
    learner = {"name": "nearest_mean"}
    config = parse(ExperimentConfig, TINY | {"learner": learner, "storage": {"root": str(tmp_path)}})
    with pytest.raises(ConfigError, match=r"^task.encoder.frozen: nearest_mean has no encoder$"):
        reader(trained, encoder={"frozen": str(run(config, tmp_path / "plain"))})


def test_a_file_that_is_no_encoder_of_a_learner_is_refused(trained, tmp_path):
    config = reader(trained)
    weights = checkpoint.best(trained).path / "model.safetensors"
    encoder = config.task.encoder.model_copy(update={"weights": str(weights)})
    with pytest.raises(ConfigError, match="holds no encoder of a learner"):
        tasks.build(json.loads(config.task.model_copy(update={"encoder": encoder}).model_dump_json()))
