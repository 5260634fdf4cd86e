"""Early stopping asks runs to end, and knows what earlier drivers saw."""

from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.sweeping.scheduler import open_scheduler
from mambacl.platform.sweeping.study import open_study
from mambacl.tasks.config import parse

NEW = SimpleNamespace(trial_id="new", config={"number": 3})


@pytest.fixture
def config(tmp_path):
    content = {"name": "s", "train": {"steps": 1000}, "search": {"selectivity.weight": {"log": [0.01, 5]}}}
    return parse(ExperimentConfig, content | {"storage": {"root": str(tmp_path)}})


@pytest.fixture
def study(config):
    return open_study(config, {"score": "max"})


def remember(study, *scores):
    """Trials that an earlier driver finished."""
    for score in scores:
        study.add_trial(
            optuna.create_trial(state=TrialState.COMPLETE, value=score, intermediate_values={250: score, 500: score})
        )


def asked(config, study, **result):
    """Numbers of the trials that are asked to end after this result of a new one."""
    numbers = []
    scheduler = open_scheduler(config, study, "max", numbers.append)
    scheduler.on_trial_add(None, NEW)
    assert scheduler.on_trial_result(None, NEW, result) == "CONTINUE", "Tune would kill the run's process"
    return numbers


def test_a_bad_trial_is_asked_to_end_since_rungs_survive_the_driver(config, study):
    """Without the trials of the earlier driver, the first ones after a resume would all go on."""
    remember(study, 0.7, 0.8, 0.9)
    assert asked(config, study, step=250, score=0.1, finished=False) == [3]
    assert asked(config, study, step=250, score=0.95, finished=False) == []


def test_the_first_trial_of_a_rung_goes_on(config, study):
    assert asked(config, study, step=250, score=0.1, finished=False) == []


def test_a_run_that_is_over_is_left_alone(config, study):
    remember(study, 0.7, 0.8, 0.9)
    assert asked(config, study, step=1000, score=0.1, finished=True) == []
