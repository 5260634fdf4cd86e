"""Fault 2: a sweep's driver is killed at random moments and the sweep resumed; the cluster goes on."""

import functools
import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.session import session
from mambacl.platform.training import checkpoint, failure
from mambacl.platform.training.run import train
from mambacl.tasks.config import parse

NODES, TRIALS, STEPS, EVERY = 3, 4, 60, 20
LATEST = 5.0
"""Seconds after its start, or after its first step of training, at which a driver is killed at the latest."""
EXPERIMENT = {
    "name": "killed",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "troubled", "width": 8, "pause": 0.1},
    "train": {"steps": STEPS, "batch": 2, "warmup": 5, "evaluate_every": EVERY, "evaluate_episodes": 4},
    "search": {"train.learning_rate": {"log": [0.0001, 0.001]}},
    "sweep": {"trials": TRIALS, "grace": STEPS},
    "resources": {"trainer": "inline"},
}
HELD = """
import json, ray
ray.init(logging_level="CRITICAL")
states = [group["state"] for group in ray.util.placement_group_table().values()]
free = ray.available_resources().get("CPU", 0)
print(json.dumps([ray.cluster_resources()["CPU"] - free, len(states) - states.count("REMOVED")]))
"""


class Trace:
    """The file in which learners note their steps."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __len__(self) -> int:
        return len(self._lines())

    def lives(self) -> list[tuple[float, float]]:
        """When each process took its first and its last step, in seconds since 1970."""
        moments: dict[str, list[float]] = {}
        for _, moment, process in self._lines():
            moments.setdefault(process, []).append(float(moment))
        return [(min(times), max(times)) for times in moments.values()]

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self.file.read_text().splitlines()] if self.file.is_file() else []


def held(cluster) -> list[float]:
    """CPUs and placement groups that somebody holds."""
    asked = subprocess.run(
        [sys.executable, "-c", HELD], env=cluster.environment, capture_output=True, text=True, timeout=100
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout.splitlines()[-1])


def test_a_run_that_outlives_its_driver_has_not_failed(tmp_path, until):
    """What it asks is on the driver's node, and may be gone before Ray has ended the run's own process."""
    import ray  # after mambacl, whose switches it reads

    content = {name: value for name, value in EXPERIMENT.items() if name not in ("search", "sweep")}
    steps = {**EXPERIMENT["train"], "steps": 10**6}
    config = parse(ExperimentConfig, content | {"learner": {"name": "alpaca", "width": 8}, "train": steps})
    with session(None), ThreadPoolExecutor() as pool:
        board, run = open_board(), tmp_path / "run"
        training = pool.submit(train, config, run, board)
        until(lambda: checkpoint.newest(run))
        ray.kill(board)
        training.result(timeout=60)
    assert failure.read(run) is None
    assert checkpoint.newest(run).progress.stopped is None, "it can be resumed"


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.brief), pytest.param(5, marks=pytest.mark.long)])
def test_every_trial_is_run_once_however_often_its_driver_is_killed(
    make_cluster, troubled, tmp_path, until, tell_fault, kills
):
    cluster = make_cluster(troubled)
    cluster.up("--workers", str(NODES - 1), "--no_mlflow")
    root, trace, log = tmp_path / "runs", Trace(tmp_path / "trace"), tmp_path / "log"
    changes = {
        "learner": EXPERIMENT["learner"] | {"trace": str(trace.file)},
        "storage": {"root": str(root)},
    }
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))
    seed = random.randrange(10**6)
    moments = [random.Random(seed + number).uniform(0, LATEST) for number in range(kills)]
    print(f"seed {seed}: drivers are killed after {', '.join(f'{moment:.1f}' for moment in moments)} s")

    def training(start):
        return any(first > start for first, _ in trace.lives())

    def command():
        known = (root / "killed" / "experiment.json").is_file()
        return ("resume", "killed", "--storage.root", str(root)) if known else ("sweep", str(tmp_path / "killed.yaml"))

    starts, ends = [], []
    for number, moment in enumerate(moments):
        start = time.time()
        starts.append(start)
        driver = cluster.start(*command(), log=log)
        if number % 2 == 0:
            until(functools.partial(training, start), driver)
        time.sleep(moment)
        assert driver.poll() is None, log.read_text()
        driver.send_signal(signal.SIGKILL)
        ends.append(time.time())
        driver.wait()
    starts.append(time.time())
    last = cluster.run(*command(), "--json")
    assert last.returncode == 0, last.stdout + last.stderr

    lasted, recovery = 0.0, 0.0
    for start, end in zip(starts[1:], ends, strict=True):
        before = [life for life in trace.lives() if life[0] < end]
        after = [first for first, _ in trace.lives() if first > end]
        if before and after:
            stopped = max(last for _, last in before)
            assert stopped < min(after), "two drivers' processes wrote into the same folders"
            lasted, recovery = max(lasted, stopped - end), max(recovery, min(after) - start)
    again = len(trace) - TRIALS * STEPS
    assert 0 <= again <= kills * NODES * EVERY, "more was lost than since the newest checkpoints"
    tell_fault(
        2, f"driver killed at {kills} random moment{'s' if kills > 1 else ''}, resumed", kills,
        f"{TRIALS} trials of {TRIALS}, each once; its processes end within {max(0, lasted):.1f} s",
        f"{again} steps of {TRIALS * STEPS}", f"{recovery:.0f} s",
    )  # fmt: skip

    study = optuna.load_study(study_name="killed", storage=f"sqlite:///{root}/optuna.db")
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(n, "COMPLETE") for n in range(TRIALS)]
    runs = sorted((root / "killed" / "trials").iterdir())
    assert len(runs) == TRIALS
    scores = {run.name: checkpoint.newest(run).progress.best_score for run in runs}
    assert scores[json.loads(last.stdout.splitlines()[-1])["best"]] == min(scores.values()), "of a regression's losses"
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    kept = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    assert {run.info.status for run in kept} == {"FINISHED"}
    trials = [run for run in kept if "mambacl.trial" in run.data.tags]
    assert sorted(run.data.tags["mambacl.trial"] for run in trials) == [str(n) for n in range(TRIALS)]
    for run in trials:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == list(range(10, STEPS + 1, 10)), "its whole curve, once"
    until(lambda: held(cluster) == [0, 0])
