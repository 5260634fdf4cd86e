"""Closed forms stand in tables at their best: their few numbers are chosen on meta-val, and it is said which."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig, RidgeConfig
from mambacl.learners.objective import scores
from mambacl.learners.registry import build as build_learner
from mambacl.platform.cli import run
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.evaluation.cells import compute
from mambacl.platform.evaluation.command import Asked, evaluate
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.platform.evaluation.tuned import EPISODES, tuned
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An experiment on small images, a noisy pattern of each class: enough of them to tell penalties apart, and quick to solve."""
    path, rng = tmp_path_factory.mktemp("images") / "patterns.npz", np.random.default_rng(0)
    pattern = rng.integers(0, 256, (60, 1, 6, 6)) + rng.normal(0, 150, (60, 8, 6, 6))
    np.savez(path, images=pattern.clip(0, 255).astype(np.uint8).reshape(-1, 6, 6), label=np.arange(60).repeat(8))
    return {
        "name": "tiny",
        "task": {"name": "images", "path": str(path), "tasks": 4, "shots": 3, "queries": 2, "augment": None},
        "learner": {"name": "prototypes", "width": 8, "encoder": {"name": "mlp"}},
        "train": {"steps": 1, "batch": 8, "evaluate_every": 1, "evaluate_episodes": 64},
    }


@pytest.fixture(scope="module")
def task(tiny):
    return parse(ExperimentConfig, tiny).task


def meta_val_score(task, learner, episodes):
    family = built_family(task)
    episode = family.episodes("meta_val", range(episodes))
    with torch.inference_mode():
        return float(scores(build_learner(learner, family.spec)(episode).prediction, episode).mean())


@pytest.fixture
def at_once(monkeypatch):
    """Cells are computed in this process; those that were asked for are listed."""
    asked = []

    def results(cells, root, progress, gpus=0):
        asked.extend(cells)
        return pd.concat([compute(cell).assign(contestant=cell.contestant.label, seed=0) for cell in cells])

    monkeypatch.setattr("mambacl.platform.evaluation.tuned.results", results)
    return asked


def test_the_candidate_with_the_best_meta_val_score_is_taken(at_once, task, tmp_path):
    [ridge] = tuned([Contestant.reference(RidgeConfig(penalty=10))], task, tmp_path)
    candidates = RidgeConfig(penalty=10).candidates()
    found = {candidate.model_dump_json(): meta_val_score(task, candidate, EPISODES) for candidate in candidates}
    assert found[ridge.learner.model_dump_json()] == max(found.values()) > found[candidates[0].model_dump_json()]
    assert {cell.point.split for cell in at_once} == {"meta_val"}
    assert Contestant.reference(ridge.learner).sha256 == ridge.sha256, "results are kept under what was chosen"


def test_fields_that_are_given_are_not_chosen(at_once, task, tmp_path):
    given = Contestant.reference(RidgeConfig(penalty=10), fixed=("name", "penalty"))
    [ridge] = tuned([given], task, tmp_path)
    assert ridge.learner.penalty == 10
    assert {cell.contestant.learner.penalty for cell in at_once} == {10}
    whole = Contestant.reference(NearestMeanConfig(), fixed=("unit",))
    assert tuned([whole], task, tmp_path) == [whole]


def test_a_closed_form_that_is_trained_alone_is_at_its_best(tiny, task, tmp_path):
    experiment = parse(ExperimentConfig, tiny | {"learner": {"name": "ridge"}})
    progress = meta_train(experiment, tmp_path, Worker(), lambda _: None, lambda *_: False)
    chosen = checkpoint.best(tmp_path).config.learner
    best = max(meta_val_score(task, candidate, 64) for candidate in RidgeConfig().candidates())
    assert progress.best_score == pytest.approx(best) == meta_val_score(task, chosen, 64)
    fixed = parse(ExperimentConfig, tiny | {"learner": {"name": "ridge", "penalty": 10, "unit": False}})
    meta_train(fixed, tmp_path / "fixed", Worker(), lambda _: None, lambda *_: False)
    assert checkpoint.best(tmp_path / "fixed").config.learner == RidgeConfig(penalty=10)


def test_an_evaluation_says_what_was_chosen(tiny, tmp_path, capsys):
    meta_train(parse(ExperimentConfig, tiny), tmp_path / "run", Worker(), lambda _: None, lambda *_: False)
    storage = StorageConfig(root=str(tmp_path / "root"))
    asked = Asked(episodes=8, references=[{"name": "ridge", "unit": False}, {"name": "nearest_mean"}], features=True)
    summary = evaluate([str(tmp_path / "run")], Standard(), storage, asked)
    label = summary["label"]
    assert summary["references"]["ridge"]["chosen"].keys() == {"penalty"}
    assert summary["references"][f"nearest_mean on {label}"]["chosen"].keys() == {"unit"}
    assert "chosen" not in summary
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"chosen on meta-val: ridge penalty={summary['references']['ridge']['chosen']['penalty']}; nearest_mean"
        in printed
    )
    kept = sorted((tmp_path / "root" / "evaluations" / "cells").rglob("*.parquet"))
    line = ["evaluate", str(tmp_path / "run"), "--storage.root", str(tmp_path / "root"), "--episodes", "8", "--json"]
    assert run(line[0], [*line[1:], "--references", "nearest_mean"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["references"]["nearest_mean"]["chosen"] == summary["references"]["nearest_mean"]["chosen"]
    assert sorted((tmp_path / "root" / "evaluations" / "cells").rglob("*.parquet")) == kept, "nothing is computed twice"
