"""One real sweep from YAML to evaluated champion: Ray Tune, Ray Train, Optuna, MLflow; killed in the middle and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.training import checkpoint

TINY = {
    "name": "tiny",
    "task": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 2},
    "learner": {"name": "attention", "layers": 1, "width": 16, "heads": 2, "encoder": {"name": "mlp"}},
    "train": {"steps": 40, "batch": 4, "learning_rate": 0.003, "warmup": 5, "evaluate_every": 10, "evaluate_episodes": 8},
    "search": {"selectivity.weight": {"log": [0.01, 5]}, "learner.heads": {"choice": [1, 2, 4]}},
    "sweep": {
        "trials": 4, "grace": 20,
        "compare": {"mamba": {"learner.name": "mamba", "learner.width": 16, "learner.encoder": {"name": "mlp"}}},
    },
}  # fmt: skip


def command(*arguments):
    return [sys.executable, "-m", "mambacl.platform.cli", *arguments]


def finished_trials(uri):
    try:
        study = optuna.load_study(study_name="tiny", storage=uri)
        return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    except Exception:  # not there yet, or just being made
        return []


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(root, the sweep's JSON): the driver was killed with SIGKILL once a trial was done, and the sweep resumed."""
    root = tmp_path_factory.mktemp("sweep")
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"storage": {"root": str(root / "runs")}}))
    uri = f"sqlite:///{root}/runs/optuna.db"
    with (root / "first.log").open("w") as log:
        driver = subprocess.Popen(
            command("sweep", str(root / "tiny.yaml")), stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 300
        while not finished_trials(uri):
            assert driver.poll() is None, (root / "first.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(5)  # into the next trials
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    done = {trial.number: trial.values for trial in finished_trials(uri)}
    assert len(done) < 4
    second = subprocess.run(
        command("resume", "tiny", "--storage.root", str(root / "runs"), "--json"),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert second.returncode == 0, second.stdout + second.stderr
    result = json.loads(second.stdout.splitlines()[-1])
    study = optuna.load_study(study_name="tiny", storage=uri)
    assert {number: study.trials[number].values for number in done} == done, "what was done is not done again"
    return root / "runs", result


def test_the_total_is_the_target_and_nothing_is_left_running(swept):
    root, result = swept
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{root}/optuna.db")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert len(list((root / "tiny" / "trials").iterdir())) == 4
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    kinds = Counter(
        "trial" if "mambacl.trial" in run.data.tags else run.data.tags.get("mambacl.role", "other") for run in runs
    )
    assert kinds == {"trial": 4, "comparison": 1, "other": 2}, "the sweep and its evaluation are the other two"
    parent = next(run for run in runs if run.info.run_name == "sweep tiny")
    assert all(
        run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in runs if "mambacl.trial" in run.data.tags
    )


def test_every_trial_has_its_whole_curve_once(swept):
    root, _ = swept
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    for run in client.search_runs([client.get_experiment_by_name("tiny").experiment_id]):
        if "mambacl.trial" in run.data.tags:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
            assert steps in ([10, 20, 30, 40], [10, 20], [10, 20, 30])


def test_the_best_of_all_trials_is_registered_and_champion(swept):
    root, result = swept
    scores = {run.name: checkpoint.newest(run).progress.best_score for run in (root / "tiny" / "trials").iterdir()}
    assert scores[result["best"]] == max(scores.values())
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    version = client.get_model_version_by_alias("tiny", "champion")
    assert int(version.version) == result["version"]
    assert result["champion"]
    assert version.tags["mambacl.sha256"] == checkpoint.best(root / "tiny" / "trials" / result["best"]).sha256
    assert "evaluation/standard" in version.tags


def test_the_evaluation_sets_it_beside_the_others_on_meta_test(swept):
    root, result = swept
    evaluation = result["evaluation"]
    assert evaluation["split"] == "meta_test"
    assert evaluation["episodes"] == 512
    assert evaluation["low"] <= evaluation["score"] <= evaluation["high"]
    assert set(evaluation["models"]) == {"mamba"}
    reference = evaluation["references"]["nearest_mean"]
    assert reference["difference"] == pytest.approx(evaluation["score"] - reference["score"])
    assert all(os.path.getsize(file) for file in evaluation["files"])


def test_a_finished_sweep_resumed_does_nothing_again(swept):
    """Same trials, same version, same cells: all is there already."""
    root, result = swept
    cells = {path: path.stat().st_mtime_ns for path in (root / "evaluations" / "cells").rglob("*.parquet")}
    again = subprocess.run(
        command("resume", "tiny", "--storage.root", str(root), "--json"), capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stdout + again.stderr
    repeated = json.loads(again.stdout.splitlines()[-1])
    assert repeated["trials"] == result["trials"]
    assert repeated["version"] == result["version"]
    assert repeated["evaluation"]["score"] == result["evaluation"]["score"]
    assert {path: path.stat().st_mtime_ns for path in (root / "evaluations" / "cells").rglob("*.parquet")} == cells


def test_another_suite_and_lists(swept):
    root, _ = swept
    child = subprocess.run(
        command("evaluate", "models:/tiny@champion", "--suite", "length", "--episodes", "64", "--storage.root", str(root), "--json"),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr
    summary = json.loads(child.stdout.splitlines()[-1])
    assert summary["suite"] == "length"
    assert summary["references"]["nearest_mean"]["episodes"] == 64
    for kind, names in (("models", {"tiny"}), ("sweeps", {"sweep tiny"})):
        rows = subprocess.run(
            command("list", kind, "--storage.root", str(root), "--json"), capture_output=True, text=True, timeout=60
        )
        assert {row["name"] for row in json.loads(rows.stdout.splitlines()[-1])} == names


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["resume", "tinny"], "no sweep 'tinny'"),
        (["evaluate", "models:/tiny@champio"], "does not exist; versions: 1; aliases: "),
        (
            ["evaluate", "models:/tiny@champion", "--suite", "lenght"],
            "suite: unknown 'lenght' (did you mean 'length'?)",
        ),
    ],
)
def test_mistakes_are_one_line(swept, arguments, line):
    root, _ = swept
    child = subprocess.run(
        command(*arguments, "--storage.root", str(root)), capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 2
    assert line in child.stderr
    assert "Traceback" not in child.stderr
