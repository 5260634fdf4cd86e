"""MLflow is a picture of what is on disk: delivering twice changes nothing, and a store that is away loses nothing."""

import http.server
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.store import Store
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
from mambacl.tasks.randomness import SPLITS
from mambacl.tasks.registry import build as build_family

TINY = {
    "name": "tiny",
    "task": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "mamba", "layers": 1, "width": 8, "state_size": 4},
    "train": {"steps": 40, "batch": 2, "warmup": 5, "evaluate_every": 20, "evaluate_episodes": 4},
    "search": {"selectivity.weight": {"log": [0.01, 5]}},
}


@pytest.fixture
def config(tmp_path):
    return parse(ExperimentConfig, TINY | {"storage": {"root": str(tmp_path)}})


def run_to(config, run, step):
    """Train in the folder until a point of the curve."""
    meta_train(config, run, Worker(), lambda saved: None, lambda done, point: done >= step)


def points(store, run_id, name):
    return [(metric.step, metric.value) for metric in store.client.get_metric_history(run_id, name)]


OPENED = """
import sys
from mambacl.platform.config import StorageConfig
from mambacl.platform.tracking.store import Store
Store(StorageConfig(root=sys.argv[1])).client
"""


def test_a_new_store_is_there_with_all_its_tables_or_not_at_all(config, tmp_path):
    """MLflow lays them out one by one, and cannot go on where its process was killed between two."""
    child = subprocess.Popen([sys.executable, "-c", OPENED, str(tmp_path)], stderr=subprocess.DEVNULL)
    database = tmp_path / "mlflow.db"

    def version():
        with sqlite3.connect(database) as connection:
            return connection.execute("select version_num from alembic_version").fetchall()

    while not database.exists():
        assert child.poll() is None
        time.sleep(0.005)
    child.kill()
    child.wait()
    before = version()
    assert Store(config.storage).experiment("tiny")
    assert version() == before


def test_a_run_appears_with_curve_params_tags_figure_and_checkpoint(config, tmp_path):
    run = tmp_path / "run"
    open_record(config, run)
    run_to(config, run, 100)
    close_record(run, None)
    store = Store(config.storage)
    record = store.deliver(run)
    assert record.delivered
    found = store.client.get_run(record.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "mamba w8 n4 kl 0.5"
    assert found.data.params["learner.state_size"] == "4"
    assert float(found.data.params["log10 selectivity.weight"]) == pytest.approx(-0.30103)
    assert found.data.tags["mambacl.config"] == config.digest
    assert found.data.tags["mambacl.stopped"] == "all steps done"
    assert [step for step, _ in points(store, record.run_id, "train/loss")] == [10, 20, 30, 40]
    assert [step for step, _ in points(store, record.run_id, "meta_val/score")] == [20, 40]
    names = {file.path for file in store.client.list_artifacts(record.run_id)}
    assert names == {"checkpoint", "classes.json", "config.yaml", "learning_curve.png"}


def test_the_classes_of_all_splits_are_kept_with_the_run_and_told_as_data_sets(config, tmp_path):
    """Names, not digests alone: another implementation can take the same splits."""
    run, family = tmp_path / "run", build_family(config.task)
    open_record(config, run)
    kept = json.loads((run / "classes.json").read_text())
    assert kept["digest"] == family.spec.digest
    for split in SPLITS:
        assert kept["splits"][split]["names"] == family.bank.classes[family.classes[split]].tolist()
        assert kept["splits"][split]["domains"] == family.bank.domains.tolist()
        assert kept["splits"][split]["digest"] == family.pools[split].digest
    store = Store(config.storage)
    record = store.deliver(run)
    found = store.client.get_run(record.run_id).inputs.dataset_inputs
    assert {one.dataset.name: {tag.key: tag.value for tag in one.tags} for one in found} == {
        f"glyphs {split}": {"mlflow.data.context": split, "mambacl.classes": family.pools[split].digest}
        for split in SPLITS
    }
    assert {one.dataset.digest for one in found} == {family.spec.digest[:36]}
    close_record(run, KeyboardInterrupt())
    store.deliver(run)
    path = store.client.download_artifacts(record.run_id, "classes.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == kept


@pytest.mark.parametrize(
    "task", [{"name": "sine", "tasks": 2}, {"name": "glyphs", "tasks": 9999}], ids=["generated", "cannot be built"]
)
def test_a_run_without_classes_is_opened_all_the_same(tmp_path, task):
    config = parse(ExperimentConfig, TINY | {"task": task, "storage": {"root": str(tmp_path)}})
    open_record(config, tmp_path / "run")
    assert not (tmp_path / "run" / "classes.json").exists()
    store = Store(config.storage)
    assert not store.client.get_run(store.deliver(tmp_path / "run").run_id).inputs.dataset_inputs


def test_delivery_in_parts_and_again_adds_nothing(config, tmp_path):
    """A driver that dies between MLflow's answer and its own record delivers the same points once more."""
    run, store = tmp_path / "run", Store(config.storage)
    open_record(config, run)
    for step in (10, 20, 30):
        run_to(config, run, step)
        store.deliver(run)
        store.deliver(run)
    before = records.read(run)
    run_to(config, run, 100)
    close_record(run, None)
    store.deliver(run)
    records.update(run, delivered=False, run_id=None)  # as a kill right after the first call would leave it
    again = store.deliver(run)
    assert again.run_id == before.run_id, "the run is found again by its folder"
    assert [step for step, _ in points(store, again.run_id, "train/loss")] == [10, 20, 30, 40]
    assert len(store.client.search_runs([store.experiment("tiny")])) == 1


def test_children_stand_under_their_parent(config, tmp_path):
    parent, child = tmp_path / "sweep", tmp_path / "sweep" / "trials" / "0"
    records.write(parent, records.Record(kind="sweep", name="sweep tiny", experiment="tiny"))
    open_record(config, child, parent, {"mambacl.trial": "0"})
    store = Store(config.storage)
    found = store.client.get_run(store.deliver(child).run_id)
    assert found.data.tags["mlflow.parentRunId"] == records.read(parent).run_id
    assert found.data.tags["mambacl.trial"] == "0"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "KILLED"), (RuntimeError("no memory"), "FAILED")])
def test_how_a_run_ended_is_told(config, tmp_path, error, status):
    run = tmp_path / "run"
    open_record(config, run)
    close_record(run, error)
    store = Store(config.storage)
    found = store.client.get_run(store.deliver(run).run_id)
    assert found.info.status == status
    assert type(error).__name__ in found.data.tags["mambacl.reason"]


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that is there and answers 500."""

    def answer(self):
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture(params=["refused", "error 500"])
def broken_uri(request, unused_port):
    if request.param == "refused":
        yield f"http://127.0.0.1:{unused_port}"
        return
    server = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_store_that_is_away_is_said_once_and_gets_everything_later(config, tmp_path, broken_uri, caplog, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    away = StorageConfig(root=str(tmp_path), tracking_uri=broken_uri)
    open_record(config, run)
    run_to(config, run, 100)
    close_record(run, None)
    delivery = Delivery(Store(away))
    delivery.add(run)
    with caplog.at_level(logging.WARNING):
        delivery.tick()
        assert not delivery.finish()
    assert caplog.text.count("training goes on") == 1
    assert "mambacl sync" in caplog.text
    assert not records.read(run).delivered
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(config.storage)
    record = store.deliver(run)
    assert record.delivered
    assert len(points(store, record.run_id, "train/loss")) == 4


def test_processes_that_open_a_new_store_at_once_lay_out_its_tables_once(tmp_path):
    code = "import sys; from mambacl.platform.config import StorageConfig as C; from mambacl.platform.tracking.store import Store"
    line = [sys.executable, "-c", f"{code}; print(Store(C(root=sys.argv[1])).experiment('one'))", str(tmp_path)]
    children = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [child.communicate(timeout=500) for child in children]
    assert len({out for out, _ in answers}) == 1, answers
    assert answers[0][0].strip().isdigit()
