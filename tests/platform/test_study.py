"""One real study from YAML to table and pictures, killed in the middle and run again."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.studying.config import StudyConfig, experiments_of, find_study
from mambacl.platform.tracking import record as records
from mambacl.platform.training import checkpoint
from mambacl.tasks.config import ConfigError, parse

TINY = {
    "name": "tiny",
    "experiments": {
        "prototypes": {"base": "quickstart", "learner.name": "prototypes"},
        "mamba": {"base": "quickstart", "learner.experts": {"count": 3, "active": 1}, "learner.feed_forward": 1},
        "diverging": {"base": "quickstart", "train.learning_rate": 1e30, "train.clip": None, "train.warmup": 0},
    },
    "fields": {
        "task.tasks": 3, "task.shots": 2, "train.steps": 60, "train.evaluate_every": 10, "train.evaluate_episodes": 8,
        "learner.width": 16, "learner.encoder": {"name": "mlp"}, "train.warmup": 5,
    },
    "match": {"measure": "parameters", "budget": 40_000},
    "references": [{"name": "nearest_mean"}, {"name": "ridge", "penalty": 10}],
    "features": True,
    "concurrent": 1,
    "episodes": 64,
}  # fmt: skip


def command(*arguments):
    return [sys.executable, "-m", "mambacl.platform.cli", *arguments]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """(folder of the study, its JSON): the driver was killed with SIGKILL after the first training, and run again."""
    root = tmp_path_factory.mktemp("study")
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    line = command("study", str(root / "tiny.yaml"), "--storage.root", str(root / "runs"), "--train.batch", "2")
    folder = root / "runs" / "studies" / "tiny"
    with (root / "first.log").open("w") as log:
        driver = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while not ((first := records.read(folder / "prototypes")) and first.status == "FINISHED"):
            assert driver.poll() is None, (root / "first.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    before = checkpoint.newest(folder / "prototypes")
    assert before.progress.stopped == "all steps done"
    second = subprocess.run([*line, "--json"], capture_output=True, text=True, timeout=500)
    assert second.returncode == 0, second.stdout + second.stderr
    again = checkpoint.newest(folder / "prototypes")
    assert again.progress == before.progress, "what is trained is not trained again"
    return folder, json.loads(second.stdout.splitlines()[-1])


def test_all_stand_in_one_table_with_what_they_cost(studied):
    folder, result = studied
    rows = pd.read_csv(folder / "table.csv").set_index("learner")
    references = ["nearest_mean", "ridge"]
    assert set(rows.index) == {
        "prototypes", "mamba", *references, *(f"{r} on {m}" for r in references for m in ("prototypes", "mamba")),
    }  # fmt: skip
    assert rows["score"].is_monotonic_decreasing
    assert (rows["low"] <= rows["score"]).all()
    assert (rows["episodes"] == 64).all()
    assert rows.loc[["prototypes", "mamba"], "parameters"].between(38_000, 42_000).all(), "matched within 5 %"
    assert rows.loc["mamba", "active_parameters"] < rows.loc["mamba", "parameters"], "two of three experts are idle"
    assert rows.loc["ridge on mamba", "state_floats"] != rows.loc["ridge", "state_floats"]
    assert (rows.loc[["prototypes", "mamba"], "cpu_seconds"] > 0).all()
    text = (folder / "table.md").read_text()
    assert all(f"| {label} |" in text for label in rows.index)
    assert all(os.path.getsize(file) for file in result["files"])


def test_one_that_diverges_is_named_and_ends_nothing(studied):
    folder, result = studied
    assert result["failed"].keys() == {"diverging"}
    assert "loss is" in result["failed"]["diverging"]
    assert records.read(folder / "diverging").status == "FAILED"


def test_runs_stand_under_their_study_in_mlflow(studied):
    folder, _ = studied
    client = MlflowClient(f"sqlite:///{folder.parent.parent}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    parent = next(run for run in runs if run.info.run_name == "study tiny")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3
    assert {run.info.status for run in [parent, *children]} == {"FINISHED", "FAILED"}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"curves.png", "accuracy.png"}
    mixture = next(run for run in children if run.data.tags["mambacl.folder"] == str(folder / "mamba"))
    assert "expert_use.png" in {file.path for file in client.list_artifacts(mixture.info.run_id)}


def test_the_use_of_experts_is_kept_by_layer_and_task(studied):
    folder, _ = studied
    use = checkpoint.newest(folder / "mamba").progress.expert_use
    assert (len(use), len(use[0]), len(use[0][0])) == (2, 3, 3)
    assert all(sum(shares) == pytest.approx(1) for layer in use for shares in layer)


def test_another_study_of_the_same_name_is_refused(studied):
    folder, _ = studied
    root = folder.parent.parent.parent
    child = subprocess.run(
        command("study", str(root / "tiny.yaml"), "--storage.root", str(root / "runs"), "--train.batch", "3"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert child.returncode == 2
    assert "train.batch (2, now 3)" in child.stderr


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"experiments": {"a": {"base": "quickstart", "learner.widht": 3}}},
            "experiments.a: learner.widht: unknown field",
        ),
        ({"experiments": {"a": {"learner.width": 3}}}, "experiments.a.base: missing"),
        ({"experiments": {"a": {"base": "quickstrat"}}}, "did you mean 'quickstart'"),
    ],
)
def test_mistakes_name_the_experiment(change, line):
    with pytest.raises(ConfigError, match=line):
        experiments_of(parse(StudyConfig, TINY | {"fields": {}} | change), {})


def test_seeds_are_runs_of_their_own():
    found = experiments_of(parse(StudyConfig, TINY | {"seeds": [0, 3]}), {"train.steps": 7})
    assert list(found)[:2] == ["prototypes.0", "prototypes.3"]
    assert [found["prototypes.3"].seed, found["prototypes.3"].train.steps] == [3, 7]


def test_the_shipped_studies_are_valid():
    from mambacl.platform.overrides import shipped

    for name in shipped("studies"):
        study = find_study(name)
        assert study.name == name
        experiments_of(study, {})
