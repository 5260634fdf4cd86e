"""Fault 3: one of three nodes is lost, with all its processes, in the middle of a sweep and of an evaluation."""

import json
import shutil
import time

import pytest
import yaml

from mambacl.platform.training import checkpoint

LONGER = 1.6
"""The most that it may take, by the time of the same without a loss."""
TRIALS, STEPS, EVERY = 3, 80, 20
EXPERIMENT = {
    "name": "lost",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    # A trial takes 8 s, and a cell of an evaluation half a second, whatever else the machine does.
    "learner": {"name": "troubled", "width": 8, "pause": 0.1, "slow": 0.5},
    "train": {"steps": STEPS, "batch": 2, "warmup": 5, "evaluate_every": EVERY, "evaluate_episodes": 4},
    "search": {"train.learning_rate": {"log": [0.0001, 0.001]}},
    "sweep": {"trials": TRIALS, "grace": STEPS},
}
CELLS = 60


@pytest.fixture(scope="module")
def three(make_cluster, troubled):
    """A function that gives a cluster of three nodes, all of which run."""
    made = make_cluster(troubled)

    def whole():
        made.up("--workers", "2", "--no_mlflow")
        return made

    return whole


class Sweep:
    """A sweep in a folder of its own."""

    def __init__(self, cluster, folder, trainer):
        self.cluster, self.folder, self.root, self.trace = cluster, folder, folder / "runs", folder / "trace"
        folder.mkdir()
        changes = {
            "learner": EXPERIMENT["learner"] | {"trace": str(self.trace)},
            "storage": {"root": str(self.root)},
            # A lost node is nobody's failure.
            "resources": {"trainer": trainer, "retries": 0},
        }
        (folder / "lost.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))

    def run(self, disturb=lambda driver: None):
        """Seconds that it took; disturb: called with the driver."""
        began = time.monotonic()
        driver = self.cluster.start("sweep", str(self.folder / "lost.yaml"), log=self.folder / "log")
        disturb(driver)
        assert driver.wait(timeout=500) == 0, (self.folder / "log").read_text()
        return time.monotonic() - began

    def in_the_middle_on(self, node):
        """Whether a process of the node has taken half the steps of a trial."""
        there = self.cluster.processes(node)
        return any(int(process) in there and int(step) >= STEPS // 2 for step, _, process in self.steps())

    def steps(self):
        return [line.split() for line in self.trace.read_text().splitlines()] if self.trace.is_file() else []

    def weights(self):
        """Of each trial."""
        runs = sorted((self.root / "lost" / "trials").iterdir())
        return {run.name: (checkpoint.newest(run).path / "model.safetensors").read_bytes() for run in runs}


@pytest.mark.alone
@pytest.mark.parametrize(
    "trainer", [pytest.param("inline", marks=pytest.mark.brief), pytest.param("ray", marks=pytest.mark.long)]
)
def test_a_sweep_finishes_without_a_node_and_to_the_same_bits(three, tmp_path, until, tell_fault, trainer):
    cluster = three()
    undisturbed, disturbed = (Sweep(cluster, tmp_path / name, trainer) for name in ("undisturbed", "disturbed"))

    def lose(driver):
        until(lambda: disturbed.in_the_middle_on("worker-2"), driver)
        cluster.kill("worker-2")

    seconds = [undisturbed.run(), disturbed.run(lose)]
    assert disturbed.weights() == undisturbed.weights()
    assert len(undisturbed.weights()) == TRIALS
    again = len(disturbed.steps()) - TRIALS * STEPS
    assert 0 <= again <= 2 * EVERY
    tell_fault(
        3, f"one of three nodes lost in a sweep ({trainer})", 1, f"same bits; {seconds[1] / seconds[0]:.2f} times as long",
        f"{again} of {EVERY} steps", f"{seconds[1] - seconds[0]:.0f} s longer",
    )  # fmt: skip
    assert seconds[1] <= LONGER * seconds[0]


@pytest.mark.long
@pytest.mark.alone
def test_an_evaluation_finishes_without_a_node(three, tmp_path, until, tell_fault):
    cluster = three()
    root, cells = tmp_path / "runs", tmp_path / "runs" / "evaluations" / "cells"
    experiment = EXPERIMENT | {"storage": {"root": str(root)}, "resources": {"trainer": "inline"}}
    experiment["learner"] = experiment["learner"] | {"pause": 0.0}
    (tmp_path / "lost.yaml").write_text(yaml.safe_dump(experiment))
    trained = cluster.run("train", str(tmp_path / "lost.yaml"), "--json")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    [run] = (root / "lost" / "train").iterdir()
    asked = ("evaluate", str(run), "--episodes", str(64 * CELLS), "--storage.root", str(root), "--json")
    seconds, summaries = [], []
    for disturbed in (False, True):
        began = time.monotonic()
        log = tmp_path / f"evaluation-{disturbed}.log"
        driver = cluster.start(*asked, log=log)
        if disturbed:
            until(lambda: len(list(cells.rglob("*.parquet"))) > CELLS / 3, driver)  # the model's come first
            cluster.kill("worker-2")
        assert driver.wait(timeout=500) == 0, log.read_text()
        seconds.append(time.monotonic() - began)
        summaries.append(json.loads(log.read_text().splitlines()[-1]))
        shutil.rmtree(root / "evaluations")
    assert summaries[0] == summaries[1]
    tell_fault(
        3, "one of three nodes lost in an evaluation", 1, f"same scores; {seconds[1] / seconds[0]:.2f} times as long",
        "cells at work", f"{seconds[1] - seconds[0]:.0f} s longer",
    )  # fmt: skip
    assert seconds[1] <= LONGER * seconds[0]
