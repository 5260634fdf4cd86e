"""MLflow's own pages, opened in a browser on the store of a study that was really run: they show what a reader needs without
any set-up."""

import html
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mambacl.platform.config import StorageConfig
from mambacl.platform.tracking.store import Store

MODEL = "weighed.letters.mamba.weight-2"
PATIENCE = 20_000
"""Milliseconds of a page's own time; they pass as fast as the page has nothing to do."""
TRIES = 8
"""How often a page is opened until it has what is expected."""


@pytest.fixture(scope="module")
def client(weighed):
    return MlflowClient(f"sqlite:///{weighed.parent.parent}/mlflow.db")


@pytest.fixture(scope="module")
def shown(weighed, rendered, with_mlflow_server):
    """A function that gives the text of a page of the MLflow server on the study's store, by the path after its #."""
    with with_mlflow_server(weighed.parent.parent) as server:

        def text(page: str, *expected: str) -> str:
            # The page's own time may run out while parts of it are still on their way from the server.
            for _ in range(TRIES):
                found = rendered(f"{server.uri}/#/{page}", milliseconds=PATIENCE)
                found = re.sub(r"<(script|style)\b.*?</\1>", "", found, flags=re.DOTALL)
                found = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found)).split())
                if all(part in found for part in expected):
                    break
            return found

        yield text


def runs_of(client, experiment):
    """(id of the experiment, its runs by name; of several of one name the last)."""
    found = client.get_experiment_by_name(experiment).experiment_id
    return found, {run.info.run_name: run for run in client.search_runs([found])}


def test_runs_stand_under_their_study_and_trials_under_their_sweep(client, shown):
    experiment, runs = runs_of(client, "weighed")
    names = ("study weighed", "standard of mamba", "robustness of mamba")
    page = shown(f"experiments/{experiment}/runs", *names)
    for name in names:
        assert name in page, page
    assert runs["mamba w16 n32 kl 2"].data.tags["mlflow.parentRunId"] == runs["study weighed"].info.run_id
    experiment, runs = runs_of(client, MODEL)
    assert f"sweep {MODEL}" in shown(f"experiments/{experiment}/runs", f"sweep {MODEL}")
    assert runs["mamba w16 n32 kl 2"].data.tags["mlflow.parentRunId"] == runs[f"sweep {MODEL}"].info.run_id


def test_trials_can_be_compared_over_the_searched_fields_and_their_logarithms(weighed, client, shown):
    """On the page that a sweep names at its end."""
    experiment, _ = runs_of(client, MODEL)
    kept = [run.data.tags for run in client.search_runs([experiment])]
    trials = [Path(tags["mambacl.folder"]) for tags in kept if "mlflow.parentRunId" in tags]
    assert len(trials) == 2
    page = Store(StorageConfig(root=str(weighed.parent.parent))).comparison(trials).partition("#/")[2]
    texts = (
        "Comparing 2 Runs", "Parallel Coordinates Plot", "mamba w16 n32 kl 2", "train.learning_rate",
        "log10 train.learning_rate", "log10 train.weight_decay", "meta_val/score",
    )  # fmt: skip
    found = shown(page, *texts)
    for text in texts:
        assert text in found, (text, found)


def test_curves_are_drawn_against_steps(client, shown):
    experiment, runs = runs_of(client, "weighed")
    name = next(name for name in runs if re.fullmatch(r"attention w16 h\d kl 2", name))
    curve = f"Step {name} (meta_val/score)"
    page = shown(f"experiments/{experiment}/runs/{runs[name].info.run_id}/model-metrics", curve)
    assert curve in page, page


def test_a_model_version_has_its_card_and_its_evaluations(client, shown):
    texts = (
        "mamba for glyphs, 3 tasks x 2 shots", "meta-val score", "parameters", f"models:/{MODEL}@candidate", "mamba w16",
        "evaluation/standard", "evaluation/robustness", "meta_test/standard",
    )  # fmt: skip
    page = shown(f"models/{MODEL}/versions/1", *texts)
    for text in texts:
        assert text in page, (text, page)
    evaluation = client.get_run(client.get_model_version(MODEL, "1").tags["evaluation/standard"])
    assert evaluation.info.run_name == "standard of mamba"
    assert evaluation.info.status == "FINISHED"
    assert evaluation.data.metrics.keys() >= {
        "meta_test/score",
        "meta_test/mamba weight-2/score",
        "meta_test/nearest_mean/low",
    }


def test_the_report_is_an_artifact_of_the_study(client, shown):
    experiment, runs = runs_of(client, "weighed")
    page = shown(f"experiments/{experiment}/runs/{runs['study weighed'].info.run_id}/artifacts")
    for file in ("report.html", "table.csv", "letters_pareto.png"):
        assert file in page, page
