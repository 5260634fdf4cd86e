"""Sine regression has a floor that no learner can be below without having seen the answers (METHOD of Lee et al., 2023)."""

import pytest

from mambacl.learners.registry import CONFIGS
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

FLOOR = 1.9e-4
"""The error that is left when the task is known: the query's own noise."""
CLASSES_ONLY = {"prototypes", "gemcl"}
SMALL = {"width": 16, "state_size": 8, "heads": 2, "hidden": 32}


@pytest.mark.parametrize("name", [n for n, kind in CONFIGS.items() if kind.scale and n not in CLASSES_ONLY])
def test_a_trained_learner_stays_above_the_floor(name, tmp_path):
    fields = CONFIGS[name].model_fields
    learner = {"name": name} | {field: value for field, value in SMALL.items() if field in fields}
    config = parse(
        ExperimentConfig,
        {
            "name": "sine",
            "task": {"name": "sine", "tasks": 2, "shots": 3, "queries": 2},
            "learner": learner,
            "train": {"steps": 20, "batch": 4, "learning_rate": 0.005, "evaluate_every": 20, "evaluate_episodes": 32},
        },
    )
    progress = meta_train(config, tmp_path, Worker(), lambda saved: None, lambda step, point: False)
    assert progress.score > FLOOR
