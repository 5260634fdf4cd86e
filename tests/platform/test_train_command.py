"""`mambacl train` as a user meets it: real Ray Train workers, Ctrl-C, and the same command again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.training import checkpoint

TINY = {
    "name": "tiny",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "mamba", "layers": 1, "width": 8, "state_size": 4},
    "train": {"steps": 3_000, "batch": 2, "warmup": 5, "evaluate_every": 300, "evaluate_episodes": 4},
}


def command(*arguments):
    return [sys.executable, "-m", "mambacl.platform.cli", *arguments]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """(storage root, exit code, what was printed): Ctrl-C once the first checkpoint was there."""
    root = tmp_path_factory.mktemp("train")
    experiment = TINY | {"storage": {"root": str(root / "runs")}}
    (root / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    log = root / "log"
    with log.open("w") as output:
        child = subprocess.Popen(
            command("train", str(root / "tiny.yaml")),
            stdout=output,
            stderr=output,
            start_new_session=True,
            # Tests that run in the background of a shell ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 200
        while not list((root / "runs").glob("tiny/train/*/checkpoints/step-*")):
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the whole group
        code = child.wait(timeout=120)
    return root, code, log.read_text()


def only_run(root):
    client = MlflowClient(f"sqlite:///{root}/runs/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    return run


def test_ctrl_c_writes_a_checkpoint_and_closes_the_run_as_killed(interrupted):
    root, code, printed = interrupted
    assert code == 130, printed
    assert "Traceback" not in printed
    assert only_run(root).info.status == "KILLED"
    [run] = (root / "runs" / "tiny" / "train").iterdir()
    last = checkpoint.newest(run)
    assert last.progress.stopped is None
    assert 300 <= last.progress.step < 3_000


def test_the_same_command_goes_on_to_the_end_in_the_same_run(interrupted):
    root, _, _ = interrupted
    before = only_run(root).info.run_id
    [run] = (root / "runs" / "tiny" / "train").iterdir()
    reached = checkpoint.newest(run).progress.step
    child = subprocess.run(
        command("train", str(root / "tiny.yaml"), "--json"), capture_output=True, text=True, timeout=400
    )
    assert child.returncode == 0, child.stdout + child.stderr
    result = json.loads(child.stdout.splitlines()[-1])
    assert result["run_id"] == before
    assert result["split"] == "meta_val"
    assert result["steps"] == 3_000 > reached
    steps = [point["step"] for point in checkpoint.newest(run).curve if "train/loss" in point]
    assert steps == list(range(10, 3_001, 10)), "each point once"
    assert only_run(root).info.status == "FINISHED"
