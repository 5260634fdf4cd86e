"""Who may be compared: models that meet the same meta-test episodes, seeds of one learner under one name."""

import pytest

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.models import common_task, labelled
from mambacl.platform.tracking.registry import Reference
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse

TINY = {
    "name": "tiny",
    "task": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "prototypes", "width": 8, "encoder": {"name": "mlp"}},
    "train": {"steps": 1, "batch": 2, "evaluate_every": 1, "evaluate_episodes": 2},
}


@pytest.fixture
def model(tmp_path):
    """A function that trains a model for a step and gives what names it."""

    def trained(seed=0, learner=None, **task):
        content = TINY | {"seed": seed, "task": TINY["task"] | task, "learner": TINY["learner"] | (learner or {})}
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        meta_train(parse(ExperimentConfig, content), run, Worker(), lambda saved: None, lambda step, point: False)
        return Reference(str(run), checkpoint.best(run))

    return trained


def test_seeds_of_a_learner_have_one_label_and_other_learners_others(model):
    found = labelled([model(seed=0), model(seed=1), model(seed=0, learner={"width": 16}), model(seed=0)])
    seeds = {}
    for label, reference in found:
        seeds.setdefault(label, []).append(
            (reference.checkpoint.config.seed, reference.checkpoint.config.learner.width)
        )
    assert seeds == {
        "prototypes": [(0, 8), (1, 8)], "prototypes (2)": [(0, 16)], "prototypes (3)": [(0, 8)],
    }  # fmt: skip


def test_models_trained_on_more_and_fewer_classes_are_compared_on_all(model):
    task = common_task([model(train_classes=20), model(train_classes=40)])
    assert task.train_classes is None
    assert common_task([model(train_classes=20)]).train_classes == 20, "alone, it is asked about its own classes"


def test_models_of_other_families_share_no_episodes_but_on_a_third(model):
    ours, theirs = model(), model(seed=3, test_domains=["SansMono", "SansMono-Bold", "SansMono-Oblique"])
    with pytest.raises(ConfigError, match="share no episodes; --on EXPERIMENT"):
        common_task([ours, theirs])
    assert common_task([model(vocabulary=3), ours], on="quickstart").tasks == 3
    with pytest.raises(ConfigError, match="was trained on size 3, quickstart has 5"):
        common_task([model(vocabulary=5), ours], on="quickstart")
