"""Fault 8: in a sweep one trial has no number for a loss, one no memory, and two raise, one of them before it has a score; the
others finish."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.tracking import record as records
from mambacl.platform.training import checkpoint

TROUBLES = ["none", "nan", "exception", "starving", "hungry", "broken"]
REASONS = {
    "nan": "loss is nan at step 16",
    "exception": "ValueError: the learner is broken",
    "broken": "ValueError: the learner has always been broken",
    "starving": "out of memory with one episode at a time: OutOfMemoryError",
}


def seed_that_tries_all():
    """Of the sampler, whose first suggestions are random."""
    for seed in itertools.count():
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        if {study.ask().suggest_categorical("learner.trouble", TROUBLES) for _ in TROUBLES} == set(TROUBLES):
            return seed
    return None


@pytest.mark.parametrize("trainer", ["inline", pytest.param("ray", marks=pytest.mark.long)])
def test_the_others_finish_and_each_says_why(tmp_path, with_troubled, tell_fault, trainer):
    root = tmp_path / "runs"
    experiment = {
        "name": "troubled",
        "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
        "learner": {"name": "troubled", "width": 8, "at": 15},
        # One evaluation before the trouble, and no rung of early stopping.
        "train": {"steps": 20, "batch": 4, "warmup": 5, "evaluate_every": 10, "evaluate_episodes": 4},
        "search": {"learner.trouble": {"choice": TROUBLES}},
        "sweep": {"trials": len(TROUBLES), "grace": 20, "seed": seed_that_tries_all()},
        "resources": {"trainer": trainer, "retries": 1},
        "storage": {"root": str(root)},
    }
    (tmp_path / "troubled.yaml").write_text(yaml.safe_dump(experiment))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("searched.py")), str(tmp_path / "troubled.yaml")],
        env=with_troubled, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads(done.stdout.splitlines()[-1])
    assert sorted(params["learner.trouble"] for _, params in trials.values()) == sorted(TROUBLES)
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    for number, (state, params) in trials.items():
        run, trouble = root / "troubled" / "trials" / f"trial-{int(number):04d}", params["learner.trouble"]
        found, last = client.get_run(records.read(run).run_id), checkpoint.newest(run)
        files = {file.path for file in client.list_artifacts(found.info.run_id)}
        if trouble in REASONS:
            assert (state, found.info.status) == ("FAIL", "FAILED"), trouble
            assert found.data.tags["mambacl.reason"].startswith(REASONS[trouble])
            assert "traceback.txt" in files
            assert "troubled.py" in (run / "traceback.txt").read_text() or trouble == "nan"
            assert (last.progress.step if last else 0) == (0 if trouble == "broken" else 10), "what was before is kept"
        else:
            assert (state, found.info.status) == ("COMPLETE", "FINISHED"), trouble
            assert last.progress.accumulate == (2 if trouble == "hungry" else 1)
            assert ("mambacl.accumulate" in found.data.tags) == (trouble == "hungry")
            assert "traceback.txt" not in files
    tell_fault(8, f"NaN, no memory and exceptions in trials of a sweep ({trainer})", len(REASONS),
               "the others finish; each says why", "the trial", f"{time.monotonic() - began:.0f} s for all")  # fmt: skip
    tell_fault(8, f"out of memory for a batch ({trainer})", 1, "goes on in two parts", "10 steps")
