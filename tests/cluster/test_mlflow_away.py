"""Fault 5: the MLflow server dies in the middle of a sweep, or answers and takes nothing."""

import http.server
import itertools
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.commands import sync
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

PAUSE = 0.05
TROUBLED = {
    "name": "tracked",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "troubled", "width": 8, "pause": PAUSE},
    "train": {"batch": 2, "warmup": 5, "evaluate_every": 50, "evaluate_episodes": 4},
    "search": {"train.learning_rate": {"log": [0.0001, 0.001]}},
    "sweep": {"trials": 4, "concurrent": 2},
    "resources": {"trainer": "inline"},
}


def rows(client, run_id, curve):
    """How often each (metric, step, value) of a curve is in MLflow."""
    names = {name for point in curve for name in point} - {"step", "time"}
    return Counter(
        (name, metric.step, metric.value) for name in names for metric in client.get_metric_history(run_id, name)
    )


def once(curve):
    """Each (metric, step, value) of a curve, once."""
    return Counter(
        (name, int(point["step"]), value)
        for point in curve
        for name, value in point.items()
        if name not in ("step", "time")
    )


@pytest.mark.alone
@pytest.mark.parametrize("away", [pytest.param(8, marks=pytest.mark.brief), pytest.param(30, marks=pytest.mark.long)])
def test_a_server_that_dies_in_a_sweep_delays_no_step_and_loses_no_metric(
    mlflow_server, tmp_path, with_troubled, until, tell_fault, away
):
    root, trace = tmp_path / "runs", tmp_path / "trace"
    # Two rounds of trials, which take longer than the server is away and takes to start, on this machine as it is now.
    steps = int((away + 8 + 3 * mlflow_server.slowness) / PAUSE / 2)
    experiment = TROUBLED | {
        "train": TROUBLED["train"] | {"steps": steps},
        "sweep": TROUBLED["sweep"] | {"grace": steps},  # none is stopped early
        "learner": TROUBLED["learner"] | {"trace": str(trace)},
        "storage": {"root": str(root), "tracking_uri": mlflow_server.uri},
    }
    (tmp_path / "tracked.yaml").write_text(yaml.safe_dump(experiment))
    log = tmp_path / "sweep.log"
    with log.open("w") as file:
        sweep = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("searched.py")), str(tmp_path / "tracked.yaml")],
            env=with_troubled, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        until(lambda: trace.is_file() and len(trace.read_text().splitlines()) >= 50, sweep, log)
        mlflow_server.kill()
        gone = time.time()
        time.sleep(away)
        mlflow_server.start()
        back = time.time()
        assert sweep.wait(timeout=400) == 0, log.read_text()
    finally:
        sweep.kill()
    said = log.read_text()
    assert said.count("training goes on") == 1
    assert said.count("is back") == 1

    traced = {}
    for line in trace.read_text().splitlines():
        step, moment, process = line.split()
        traced.setdefault(process, []).append((int(step), float(moment)))
    pairs = [pair for steps in traced.values() for pair in itertools.pairwise(steps)]
    during = [b[1] - a[1] - PAUSE for a, b in pairs if b[0] == a[0] + 1 and gone <= a[1] <= back]
    assert len(during) > away / PAUSE / 4, "training went on"
    assert max(during) < 1

    client, lost, doubled = MlflowClient(mlflow_server.uri), 0, 0
    for run in sorted((root / "tracked" / "trials").iterdir()):
        record, curve = records.read(run), checkpoint.newest(run).curve
        assert record.delivered
        assert client.get_run(record.run_id).info.status == "FINISHED"
        found = rows(client, record.run_id, curve)
        lost += sum((once(curve) - found).values())
        doubled += sum((found - once(curve)).values())
    assert (lost, doubled) == (0, 0)
    tell_fault(
        5, f"MLflow server killed for {away} s", 1, f"no step waited longer than {max(during):.2f} s", "no metric"
    )


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that is there and takes nothing."""

    def answer(self):
        self.send_response(self.server.status)
        self.end_headers()

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_):
        pass


def tiny(root, uri):
    content = {
        name: value for name, value in TROUBLED.items() if name not in ("learner", "search", "sweep", "resources")
    }
    train = TROUBLED["train"] | {"steps": 40, "evaluate_every": 20}
    return parse(
        ExperimentConfig,
        content | {"learner": {"name": "alpaca", "width": 8}, "train": train, "storage": {"root": str(root), "tracking_uri": uri}},
    )  # fmt: skip


def finish_a_run(config, run, delivery):
    """Train to the end and deliver, as a command does."""
    meta_train(config, run, Worker(), lambda saved: None, lambda step, point: False)
    delivery.tick()
    close_record(run, None)
    return delivery.finish()


def test_what_a_refusing_server_does_not_take_is_kept_and_delivered_by_sync(tmp_path, caplog, tell_fault):
    for status in (500, 403):
        refusing = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
        refusing.status = status
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        root = tmp_path / str(status)
        config = tiny(root, f"http://127.0.0.1:{refusing.server_port}")
        run = root / "run"
        open_record(config, run)
        delivery = Delivery(Store(config.storage))
        delivery.add(run)
        with caplog.at_level(logging.WARNING):
            assert not finish_a_run(config, run, delivery)
        refusing.shutdown()
        assert "`mambacl sync` delivers them later" in caplog.text
        assert checkpoint.newest(run).progress.stopped == "all steps done"
        assert sync.main(["--storage.root", str(root), "--storage.tracking_uri", f"sqlite:///{root}/mlflow.db"]) == 0
        curve, record = checkpoint.newest(run).curve, records.read(run)
        assert rows(MlflowClient(f"sqlite:///{root}/mlflow.db"), record.run_id, curve) == once(curve)
    tell_fault(5, "MLflow answers 500 or 403", 2, "runs finish; sync delivers", "no metric")


@pytest.mark.parametrize("small_disk", [8], indirect=True)
def test_what_does_not_fit_on_the_disk_of_mlflow_is_kept_and_delivered_by_sync(
    small_disk, tmp_path, caplog, tell_fault
):
    """The store fills up in mid-run."""
    config = tiny(tmp_path / "runs", f"sqlite:///{small_disk}/mlflow.db")
    run = tmp_path / "runs" / "run"
    open_record(config, run)
    delivery = Delivery(Store(config.storage))
    delivery.add(run)
    delivery.tick()
    delivery.pending.result()
    assert records.read(run).run_id
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with caplog.at_level(logging.WARNING):
        delivery.due = 0.0
        assert not finish_a_run(config, run, delivery)
    assert "full" in caplog.text
    ballast.unlink()
    assert (
        sync.main(["--storage.root", str(tmp_path / "runs"), "--storage.tracking_uri", config.storage.tracking_uri])
        == 0
    )
    curve, record = checkpoint.newest(run).curve, records.read(run)
    assert rows(Store(config.storage).client, record.run_id, curve) == once(curve)
    tell_fault(5, "MLflow's disk full", 1, "the run finishes; sync delivers", "no metric")
