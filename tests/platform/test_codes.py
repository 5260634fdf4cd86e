"""Whatever label codes compete in training compete in the choice of checkpoints, in the headline, and for all contestants."""

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.learners.learner import Learner, Output
from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.evaluation.cells import Cell, cells_of
from mambacl.platform.evaluation.codes import competing, headline
from mambacl.platform.evaluation.command import Asked, evaluate
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.measures.scores import scores_of
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.forgetting import Forgetting
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.validate import validate
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

TINY = {
    "name": "tiny",
    "task": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1, "vocabulary": 50, "augment": None},
    "learner": {"name": "prototypes", "width": 16, "encoder": {"name": "mlp"}},
    "train": {"steps": 2, "batch": 2, "warmup": 0, "evaluate_every": 2, "evaluate_episodes": 40},
}


def config(codes):
    return parse(ExperimentConfig, TINY | {"train": TINY["train"] | {"codes": codes}})


class Deluded(Learner):
    """Nearest mean among the codes of the stream, but surest of all of a code that the stream has not shown."""

    def __init__(self, spec):
        super().__init__(spec)
        self.inner = build_learner({"name": "nearest_mean"}, spec)

    def init_state(self, batch_size):
        return self.inner.init_state(batch_size)

    def observe(self, state, x, y):
        return self.inner.observe(state, x, y)

    def predict(self, state, x):
        logits = self.inner.predict(state, x).prediction
        return Output(torch.where(logits.isfinite(), logits, 0.0))

    def state_floats(self, examples):
        return self.inner.state_floats(examples)


@pytest.mark.parametrize("codes", ["all", "seen"])
def test_checkpoints_are_chosen_by_what_competes_in_training(codes):
    experiment = config(codes)
    family = built_family(experiment.task)
    found = validate(Deluded(family.spec), family, experiment, Worker()).point
    assert found["meta_val/score_all"] == 0
    assert found["meta_val/score_seen"] > 0.4
    assert found["meta_val/score"] == found[f"meta_val/score_{codes}"]
    assert (found["meta_val/loss"] < 100) == (codes == "seen")


def test_the_headline_of_a_cell_is_among_the_codes_that_compete():
    task = config("seen").task
    contestant = Contestant.reference(NearestMeanConfig())
    cell: Cell = cells_of(contestant, task, Point.as_trained(built_family(task), "meta_test"), 0, 8)[0]
    family = built_family(task)
    rows = scores_of(cell, family, Deluded(family.spec))
    assert headline(rows, "all") is rows
    seen = headline(rows, "seen")
    assert seen["score"].equals(rows["score_seen"])
    assert seen["score_all"].equals(rows["score"])
    assert np.allclose(np.stack(list(seen["score_by_task"])).mean(1), seen["score"])
    assert seen["score"].mean() > rows["score"].mean() == 0
    values = pd.DataFrame({"score": [0.1]})
    assert headline(values, "seen") is values


def test_one_model_trained_among_seen_codes_decides_for_all():
    assert competing([config("all"), config("all")]) == "all"
    assert competing([config("all"), config("seen")]) == "seen"


def test_an_evaluation_asks_all_contestants_among_the_same_codes(tmp_path):
    runs = {}
    for codes in ("seen", "all"):
        run = tmp_path / codes
        meta_train(config(codes), run, Worker(), lambda _: None, lambda *_: False)
        runs[codes] = [run]
    storage, asked = StorageConfig(root=str(tmp_path / "root")), Asked(episodes=8)
    alone = evaluate({"all": runs["all"]}, Standard(), storage, asked, folder=tmp_path / "alone")
    assert (alone["codes"], "score_seen" in alone) == ("all", True)
    for suite in (Standard(), Forgetting()):
        both = evaluate(runs, suite, storage, asked, folder=tmp_path / suite.name)
        assert both["codes"] == "seen"
        for found in (both, both["models"]["all"], both["references"]["nearest_mean"]):
            assert "score_all" in found
            assert "score_seen" not in found
        table = pd.read_csv(tmp_path / suite.name / "scores.csv").set_index("contestant")
        assert table.loc["all", "score"] == pytest.approx(both["models"]["all"]["score"])
        assert table.loc["all", "classes"] == both["classes"] > 3
