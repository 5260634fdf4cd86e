"""Fault 11: a sweep of 200 trials stays as small and as fast as it began, and what the platform adds to a trial is little."""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from mambacl.platform.benchmarks.training import between
from mambacl.platform.training import checkpoint

SEARCHED = Path(__file__).with_name("searched.py")


def experiment(root, trials, steps, trainer="inline", **learner):
    return {
        "name": "many",
        "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
        "learner": {"name": "troubled", "width": 8, **learner},
        "train": {"steps": steps, "batch": 2, "warmup": 5, "evaluate_every": steps, "evaluate_episodes": 4},
        "search": {"train.learning_rate": {"log": [0.0001, 0.001]}},
        "sweep": {"trials": trials, "concurrent": 1},
        "resources": {"trainer": trainer},
        "storage": {"root": str(root)},
    }


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid):
    """MB in use."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


def searched(folder, content, environment):
    """The finished trials of a search, in order, and what its driver used while it ran: (trials done, memory, open files)."""
    (folder / "many.yaml").write_text(yaml.safe_dump(content))
    runs, used = folder / "runs" / "many" / "trials", []
    with (folder / "search.log").open("w") as log:
        driver = subprocess.Popen(
            [sys.executable, str(SEARCHED), str(folder / "many.yaml")], env=environment, stdout=log, stderr=log
        )
    try:
        while driver.poll() is None:
            time.sleep(0.5)
            done = len(list(runs.iterdir())) - 1 if runs.is_dir() else 0
            try:
                used.append((done, memory(driver.pid), open_files(driver.pid)))
            except (OSError, ValueError):  # it ended just now
                break
        assert driver.wait(timeout=60) == 0, (folder / "search.log").read_text()
    finally:
        driver.kill()
    study = optuna.load_study(study_name="many", storage=f"sqlite:///{folder}/runs/optuna.db")
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    return study.trials, used


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(1800)
def test_two_hundred_trials(tmp_path, with_troubled, tell_fault):
    trials, used = searched(tmp_path, experiment(tmp_path / "runs", 200, 20, pause=0.005), with_troubled)
    assert len(trials) == 200
    warm = [memory for done, memory, _ in used if 10 <= done <= 30]
    late = [memory for done, memory, _ in used if done >= 190]
    growth = statistics.median(late) / statistics.median(warm) - 1
    files = [max(files for done, _, files in used if low <= done < low + 50) for low in (10, 150)]
    took = between(trials)
    first, last = 50 / sum(took[:50]), 50 / sum(took[-50:])
    trained = [
        checkpoint.newest(tmp_path / "runs" / "many" / "trials" / f"trial-{trial.number:04d}").progress.seconds
        for trial in trials[1:]
    ]
    overhead = statistics.mean(took) - statistics.mean(trained)
    tell_fault(11, "200 trials, inline", 200, f"{first:.2f} trials a second at first, {last:.2f} at the end",
               f"memory {growth:+.0%}, open files {files[0]} and {files[1]}", f"{overhead:.2f} s a trial")  # fmt: skip
    assert growth < 0.2
    assert files[1] <= files[0] + 5
    assert last >= 0.8 * first
    assert overhead < 0.5


ALONE = """
import pathlib, sys, yaml
from mambacl.platform.benchmarks.training import train_alone
from mambacl.platform.config import ExperimentConfig
from mambacl.tasks.config import parse
config = parse(ExperimentConfig, yaml.safe_load(pathlib.Path(sys.argv[1]).read_text()))
print(train_alone(config, pathlib.Path(sys.argv[2])).seconds)
"""


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_the_platform_takes_little_beside_training(tmp_path, with_troubled, tell_fault):
    """At 50 ms a step, against the bare loop; and what Ray Train's own start adds, apart."""
    added = {}
    for trainer, number in (("inline", 4), ("ray", 2)):
        folder = tmp_path / trainer
        folder.mkdir()
        trials, _ = searched(folder, experiment(folder / "runs", number, 100, trainer, pause=0.05), with_troubled)
        added[trainer] = statistics.mean(between(trials))
    bare = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "inline" / "many.yaml"), str(tmp_path / "bare")],
        env=with_troubled, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    training = float(bare.stdout)
    share = added["inline"] / training - 1
    tell_fault(11, f"a trial of {training:.0f} s at 50 ms a step", 4, f"inline adds {share:.1%}", "",
               f"Ray Train adds {added['ray'] - training:.1f} s")  # fmt: skip
    assert share < 0.05


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_inline_trial_whose_process_ends_goes_on_in_another(tmp_path, with_troubled, until, tell_fault, number):
    """Killed it has lost an interval; asked to leave it has lost nothing, and it is no failure: no retries are left."""
    trace = tmp_path / "trace"
    content = experiment(tmp_path / "runs", 2, 200, pause=0.02, trace=str(trace))
    content["train"]["evaluate_every"] = 50
    content["resources"]["retries"] = 1 if number == signal.SIGKILL else 0
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(content))
    log = tmp_path / "search.log"
    with log.open("w") as file:
        driver = subprocess.Popen(
            [sys.executable, str(SEARCHED), str(tmp_path / "many.yaml")], env=with_troubled, stdout=file, stderr=file
        )
    try:
        until(lambda: trace.is_file() and len(trace.read_text().splitlines()) >= 75, driver, log)
        os.kill(int(trace.read_text().splitlines()[-1].split()[2]), number)
        assert driver.wait(timeout=300) == 0, log.read_text()
    finally:
        driver.kill()
    study = optuna.load_study(study_name="many", storage=f"sqlite:///{tmp_path}/runs/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    steps = [int(line.split()[0]) for line in trace.read_text().splitlines()]
    again = len(steps) - 400
    assert 0 <= again <= (50 if number == signal.SIGKILL else 0)
    last = checkpoint.newest(tmp_path / "runs" / "many" / "trials" / "trial-0000")
    assert last.progress.preempted == (number == signal.SIGTERM)
    fault = (
        (1, "trial's process killed (inline)")
        if number == signal.SIGKILL
        else (12, "SIGTERM to a trial's process (inline)")
    )
    tell_fault(*fault, 1, "the sweep finishes", f"{again} of 50 steps")
