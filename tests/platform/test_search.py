"""The search: a study that a crash left is taken up where it was, and the total stays the target."""

import json

import pytest
from ray.tune.search import Searcher

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.sweeping.command import claim
from mambacl.platform.sweeping.search import StudySearch
from mambacl.platform.sweeping.study import open_study, shown_uri, study_uri
from mambacl.tasks.config import ConfigError, parse

SWEEP = {
    "name": "s",
    "task": {"name": "glyphs"},
    "search": {
        "learner.name": {"choice": ["mamba", "attention"]},
        "learner.state_size": {"choice": [8, 16], "when": {"learner.name": "mamba"}},
        "selectivity.weight": {"log": [0.01, 5]},
        "train.learning_rate": {"float": [0.001, 0.002], "when": {"task.name": "glyphs"}},
        "learner.layers": {"int": [1, 3]},
    },
    "sweep": {"trials": 5},
}


@pytest.fixture
def config(tmp_path):
    return parse(ExperimentConfig, SWEEP | {"storage": {"root": str(tmp_path)}})


def result(step, score, finished=False):
    return {"step": step, "score": score, "state_floats": 10, "finished": finished}


def states(study):
    return [trial.state.name for trial in study.get_trials()]


def test_values_follow_their_conditions_and_bounds(config):
    search = StudySearch(config, open_study(config, {"score": "max"}), {"score": "max"})
    for number in range(5):
        suggestion = search.suggest(str(number))
        values = suggestion["values"]
        assert suggestion["number"] == number
        assert ("learner.state_size" in values) == (values["learner.name"] == "mamba")
        assert 0.01 <= values["selectivity.weight"] <= 5
        assert values["learner.layers"] in (1, 2, 3)
        assert 0.001 <= values["train.learning_rate"] <= 0.002
    assert search.suggest("6") == Searcher.FINISHED


def test_a_new_driver_hands_out_open_trials_first_and_stops_at_the_total(config):
    first = StudySearch(config, open_study(config, {"score": "max"}), {"score": "max"})
    before = {name: first.suggest(name) for name in ("a", "b", "c")}
    first.on_trial_result("a", result(10, 0.5))
    first.on_trial_complete("a", result(40, 0.6, finished=True))
    first.on_trial_result("b", result(10, 0.1))
    # The driver is killed here: b and c are open in the study.
    second = StudySearch(config, open_study(config, {"score": "max"}), {"score": "max"})
    assert [second.suggest("x"), second.suggest("y")] == [before["b"], before["c"]]
    second.on_trial_result("x", result(10, 0.1))  # reported a second time after the resume: no complaint
    second.on_trial_complete("x", result(10, 0.1))
    second.on_trial_complete("y", None, error=True)
    for name in ("d", "e"):
        assert second.suggest(name)["number"] in (3, 4)
        second.on_trial_complete(name, result(40, 0.2, finished=True))
    assert second.suggest("f") == Searcher.FINISHED
    assert states(second.study) == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "COMPLETE"]
    assert second.study.best_value == 0.6


def test_a_driver_that_is_asked_to_stop_leaves_its_trials_open(config):
    search = StudySearch(config, open_study(config, {"score": "max"}), {"score": "max"})
    search.suggest("a")
    search.stopping = True
    search.on_trial_complete("a", result(10, 0.5))
    assert search.suggest("b") == Searcher.FINISHED
    assert states(search.study) == ["RUNNING"]


def test_two_objectives_give_a_front(config):
    two = config.model_copy(update={"sweep": config.sweep.model_copy(update={"objectives": ("score", "state_floats")})})
    modes = {"score": "max", "state_floats": "min"}
    search = StudySearch(two, open_study(two, modes), modes)
    for name, score, floats in (("a", 0.5, 10), ("b", 0.6, 20), ("c", 0.4, 30)):
        search.suggest(name)
        search.on_trial_result(name, result(10, score))
        search.on_trial_complete(name, result(40, score, finished=True) | {"state_floats": floats})
    assert {trial.number for trial in search.study.best_trials} == {0, 1}


def test_the_same_seed_suggests_the_same(config, tmp_path):
    def first_two(root):
        own = config.model_copy(update={"storage": config.storage.model_copy(update={"root": str(root)})})
        search = StudySearch(own, open_study(own, {"score": "max"}), {"score": "max"})
        return [search.suggest(name) for name in ("a", "b")]

    assert first_two(tmp_path / "a") == first_two(tmp_path / "b")


def test_another_config_of_the_same_name_is_refused_with_the_fields(config, tmp_path):
    folder = tmp_path / "s"
    claim(config, folder)
    more = json.loads(config.model_dump_json())
    more["sweep"]["trials"] = 9
    claim(parse(ExperimentConfig, more), folder)
    other = json.loads(config.model_dump_json())
    other["train"]["batch"] = 8
    with pytest.raises(
        ConfigError, match=r"a sweep 's' exists with another config: train\.batch \(16, now 8\); choose another --name"
    ):
        claim(parse(ExperimentConfig, other), folder)


def test_a_database_from_the_environment_is_shown_without_its_password(config, monkeypatch):
    assert shown_uri(config.storage) == study_uri(config.storage), "SQLite has none"
    monkeypatch.setenv("MAMBACL_STUDY_URI", "postgresql+psycopg://me:canary@host/optuna")
    asked = config.storage.model_copy(update={"study_uri": None})
    assert study_uri(asked) == "postgresql+psycopg://me:canary@host/optuna"
    assert shown_uri(asked) == "postgresql+psycopg://me:***@host/optuna"
