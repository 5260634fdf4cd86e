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

from mambacl.platform.studying.command import check_transfer, unserved
from mambacl.platform.studying.config import StudyConfig, entries_of, find_study
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
        "resources.trainer": "inline", "learner.width": 16, "learner.encoder": {"name": "mlp"}, "train.warmup": 5,
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
        while not ((first := records.read(folder / "prototypes,seed=0")) and first.status == "FINISHED"):
            assert driver.poll() is None, (root / "first.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    before = checkpoint.newest(folder / "prototypes,seed=0")
    assert before.progress.stopped == "all steps done"
    second = subprocess.run([*line, "--json"], capture_output=True, text=True, timeout=500)
    assert second.returncode == 0, second.stdout + second.stderr
    again = checkpoint.newest(folder / "prototypes,seed=0")
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
    assert result["failed"].keys() == {"diverging,seed=0"}
    assert "loss is" in result["failed"]["diverging,seed=0"]
    assert records.read(folder / "diverging,seed=0").status == "FAILED"
    page = (folder / "report.html").read_text()
    assert "training diverging,seed=0" in page
    assert "loss is" in page


def test_runs_stand_under_their_study_in_mlflow(studied):
    folder, _ = studied
    client = MlflowClient(f"sqlite:///{folder.parent.parent}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    parent = next(run for run in runs if run.info.run_name == "study tiny")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3
    assert {run.info.status for run in [parent, *children]} == {"FINISHED", "FAILED"}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {
        "curves.png", "scores.png", "pareto.png", "table.csv", "report.html",
    }  # fmt: skip
    mixture = next(run for run in children if run.data.tags["mambacl.folder"] == str(folder / "mamba,seed=0"))
    assert "expert_use.png" in {file.path for file in client.list_artifacts(mixture.info.run_id)}


def test_the_use_of_experts_is_kept_by_layer_and_task(studied):
    folder, _ = studied
    use = checkpoint.newest(folder / "mamba,seed=0").progress.expert_use
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
    assert "--fork NAME starts another" in child.stderr


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"experiments": {"a": {"base": "quickstart", "learner.widht": 3}}},
            "experiments.a: learner.widht: unknown field",
        ),
        ({"experiments": {"a": {"learner.width": 3}}}, "experiments.a: base: missing"),
        ({"experiments": {"a": {"base": "quickstrat"}}}, "did you mean 'quickstart'"),
        ({"experiments": {}}, "^experiments: must have at least 1, got 0$"),
        ({"seeds": []}, "^seeds: must have at least 1, got 0$"),
    ],
)
def test_mistakes_name_the_experiment(change, line):
    with pytest.raises(ConfigError, match=line):
        entries_of(parse(StudyConfig, TINY | {"fields": {}} | change), {})


def test_a_suite_that_no_learner_can_be_asked_is_refused_before_anything_is_trained():
    def asked(*learners):
        experiments = {name: {"base": "quickstart", "learner.name": name} for name in learners}
        study = {"name": "maps", "suites": ["standard", "selectivity"], "experiments": experiments}
        config = parse(StudyConfig, study)
        return unserved(config, entries_of(config, {}))

    assert asked("prototypes", "attention") == {}
    with pytest.raises(ConfigError, match="selectivity needs a learner with association maps"):
        asked("prototypes")


def test_entries_are_families_times_experiments_times_values_times_seeds():
    study = parse(
        StudyConfig,
        TINY
        | {
            "seeds": [0, 3],
            "families": {"glyphs": {}, "waves": {"base": "sine", "task.shots": 4}},
            "vary": {"selectivity.weight": [0, 2]},
            "fields": {},
        },
    )
    found = {entry.path: entry.experiment for entry in entries_of(study, {"train.steps": 7})}
    assert len(found) == 2 * 3 * 2 * 2
    one = found["waves.mamba,weight=2,seed=3"]
    assert (one.seed, one.train.steps, one.selectivity.weight) == (3, 7, 2)
    assert (one.task.name, one.task.shots) == ("sine", 4)
    assert found["glyphs.mamba,weight=0,seed=3"].task.name == "glyphs"


def test_data_are_looked_for_in_the_folder_that_is_given():
    study = parse(StudyConfig, {"name": "a", "experiments": {"mamba": {"base": "omniglot"}}})
    assert entries_of(study, {}, "/somewhere")[0].experiment.task.path == "/somewhere/omniglot_background_32.npz"
    absolute = entries_of(study, {"task.path": "/else/where.npz"}, "/somewhere")[0]
    assert absolute.experiment.task.path == "/else/where.npz"


def test_a_size_is_laid_over_the_study(tmp_path):
    small = {"only": ["mamba"], "episodes": 8, "add": {"fields": {"train.steps": 5}}}
    other = {"fields": {"train.steps": 6}, "experiments": {"own": {"base": "sine", "answers": "is it waves?"}}}
    sized = TINY | {"sizes": {"small": small, "large": {}, "other": other}}
    (tmp_path / "sized.yaml").write_text(yaml.safe_dump(sized, sort_keys=False))
    small = find_study(str(tmp_path / "sized.yaml"))
    assert (small.name, list(small.experiments), small.episodes) == ("tiny.small", ["mamba"], 8)
    assert small.fields == TINY["fields"] | {"train.steps": 5}
    replaced = find_study(str(tmp_path / "sized.yaml"), "other")
    assert (replaced.fields, list(replaced.experiments)) == ({"train.steps": 6}, ["own"])
    assert replaced.match == small.match
    [entry] = entries_of(replaced, {})
    assert entry.answers == "is it waves?"
    large = find_study(str(tmp_path / "sized.yaml"), "large")
    assert (large.name, len(large.experiments), large.episodes) == ("tiny.large", 3, 64)
    with pytest.raises(ConfigError, match="allowed: small, large, other"):
        find_study(str(tmp_path / "sized.yaml"), "larg")
    sized["sizes"]["small"]["only"] = ["mambo"]
    (tmp_path / "sized.yaml").write_text(yaml.safe_dump(sized, sort_keys=False))
    with pytest.raises(ConfigError, match="allowed: prototypes, mamba"):
        find_study(str(tmp_path / "sized.yaml"))


def test_a_size_with_a_base_of_its_own_is_that_study(tmp_path):
    """Of the study that it is a size of, name and question are left, and no family, field or match of it."""
    sizes = {"waves": {"base": "experts", "add": {"fields": {"train.steps": 7}}}}
    own = TINY | {"question": "Which?", "families": {"glyphs": {}}, "sizes": sizes}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    study, experts = find_study(str(tmp_path / "own.yaml")), find_study("experts")
    assert (study.name, study.question) == ("tiny.waves", "Which?")
    assert (study.families, study.match, list(study.experiments)) == (None, experts.match, list(experts.experiments))
    assert study.fields == experts.fields | {"train.steps": 7}


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ({"seeds": [1]}, "add: must be mappings by the name of the mapping they are added to"),
        ({"seeds": {"a": 1}}, "add.seeds: seeds is no mapping; write seeds itself to replace it"),
    ],
)
def test_only_entries_of_mappings_are_added(added, line, tmp_path):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TINY | {"seeds": [0], "sizes": {"small": {"add": added}}}))
    with pytest.raises(ConfigError, match=line):
        find_study(str(tmp_path / "own.yaml"))


def test_families_that_models_are_asked_about_elsewhere_must_fit():
    def refused(**families):
        study = parse(StudyConfig, TINY | {"fields": {}, "families": families, "transfer": True})
        with pytest.raises(ConfigError) as caught:
            check_transfer(study, entries_of(study, {}))
        return str(caught.value)

    assert refused(letters={}) == "transfer: needs more than one of families"
    line = "transfer: letters has size 10, more has 20; they have to be the same"
    assert refused(letters={}, more={"task.vocabulary": 20}) == line
