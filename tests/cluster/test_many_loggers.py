"""Fault 10: eight processes log at once, to SQLite behind a server and to PostgreSQL."""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

PROCESSES, BATCH = 8, 100
LOGGING = """
import json, pathlib, sys, time, torch
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Progress
from mambacl.tasks.episode import Spec

run, seconds, batch = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
config = ExperimentConfig(name="logged", storage=StorageConfig(root=str(run.parent)))
spec = Spec(input="vector", shape=(2,), output="classification", size=3, digest="d")
records.reopen(run, Record(kind="train", name=run.name, experiment="logged"))
store = Store(config.storage)
store.deliver(run)
print("ready", flush=True)
sys.stdin.readline()
curve, latencies, end = [], [], time.monotonic() + seconds
while time.monotonic() < end:
    for _ in range(batch):
        step = len(curve) + 1
        curve.append({"step": step, "time": time.time_ns() // 1_000_000, "train/loss": float(step)})
    progress = Progress(step=len(curve), score=0.5, best_score=0.5, best_step=len(curve), stale=0, seconds=1.0,
                        stopped=None, state_floats=1, spec=spec)
    checkpoint.save(run, config, progress, {"w": torch.zeros(1)}, {"w/exp_avg": torch.zeros(1)}, curve)
    began = time.monotonic()
    store.deliver(run)
    latencies.append(time.monotonic() - began)
records.update(run, status="FINISHED")
record = store.deliver(run)
print(json.dumps({"run_id": record.run_id, "points": len(curve), "latencies": latencies}))
"""


def log_at_once(root, environment, seconds):
    """What each process wrote and how long its batches took."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", LOGGING, str(root / f"process-{number}"), str(seconds), str(BATCH)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        with ThreadPoolExecutor(PROCESSES) as pool:
            answers = list(pool.map(lambda child: child.communicate("go\n", timeout=seconds + 300), children))
        assert [child.returncode for child in children] == [0] * PROCESSES, [err for _, err in answers]
    finally:
        for child in children:
            child.kill()
    return [json.loads(out.splitlines()[-1]) for out, _ in answers]


def check_and_tell(client, wrote, store, tell_fault):
    for one in wrote:
        found = client.get_metric_history(one["run_id"], "train/loss")
        assert sorted((metric.step, metric.value) for metric in found) == [
            (n, float(n)) for n in range(1, one["points"] + 1)
        ]
        assert client.get_run(one["run_id"]).info.status == "FINISHED"
    taken = sorted(latency for one in wrote for latency in one["latencies"])
    points = sum(one["points"] for one in wrote)
    median, most = statistics.median(taken), taken[-1]
    tell_fault(10, f"{PROCESSES} processes log at once to {store}", len(taken), f"{points:,} points", "no point, no lock error",
               f"a batch of {BATCH}: median {median:.2f} s, at most {most:.2f} s")  # fmt: skip


@pytest.mark.parametrize(
    "seconds", [pytest.param(6, marks=pytest.mark.brief), pytest.param(60, marks=pytest.mark.long)]
)
def test_sqlite_behind_a_server_loses_nothing(mlflow_server, tmp_path, tell_fault, seconds):
    wrote = log_at_once(tmp_path / "runs", os.environ | {"MLFLOW_TRACKING_URI": mlflow_server.uri}, seconds)
    assert "database is locked" not in (tmp_path / "server.log").read_text()
    check_and_tell(MlflowClient(mlflow_server.uri), wrote, f"SQLite, {seconds} s", tell_fault)


@pytest.mark.long
def test_postgresql_loses_nothing(cluster, tmp_path, tell_fault, monkeypatch):
    cluster.up("--workers", "0")
    wrote = log_at_once(tmp_path / "runs", cluster.environment, 60)
    for name, value in cluster.environment.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    check_and_tell(MlflowClient(cluster.environment["MLFLOW_TRACKING_URI"]), wrote, "PostgreSQL, 60 s", tell_fault)
