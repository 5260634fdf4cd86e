"""Faults 1 and 12: a training process is killed, or asked to leave its machine, at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mambacl.platform.training import checkpoint

EVERY = 20
"""Steps between checkpoints."""
PAUSE = 0.02
LATEST = 1.0
"""Seconds after its first step at which a process gets a signal at the latest: more than two intervals."""
GRACE = 10.0
"""Seconds between notice and end: clouds give 30 and more."""


def experiment(root, trace, steps, trainer, retries):
    return {
        "name": "lost",
        "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
        "learner": {"name": "troubled", "width": 8, "pause": PAUSE, "trace": str(trace)},
        "train": {"steps": steps, "batch": 2, "warmup": 5, "evaluate_every": EVERY, "evaluate_episodes": 4},
        "resources": {"trainer": trainer, "retries": retries},
        "storage": {"root": str(root)},
    }


ALONE = """
import pathlib, sys, yaml
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
content = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
content["learner"] |= {"pause": 0.0, "trace": None}
run = pathlib.Path(sys.argv[2])
meta_train(parse(ExperimentConfig, content), run, Worker(), lambda saved: None, lambda step, point: False)
"""


class Disturbed:
    """A `mambacl train` whose training process gets signals."""

    def __init__(self, folder: Path, environment: dict[str, str], times: int, trainer: str, retries: int) -> None:
        self.folder, self.environment, self.trace = folder, environment, folder / "trace"
        self.content = experiment(
            folder / "runs", self.trace, int(1.2 * LATEST / PAUSE) * (times + 1), trainer, retries
        )
        (folder / "lost.yaml").write_text(yaml.safe_dump(self.content))

    def steps(self) -> list[tuple[int, float, int]]:
        """(number, time, process) of every step so far."""
        lines = self.trace.read_text().splitlines() if self.trace.is_file() else []
        return [(int(step), float(moment), int(process)) for step, moment, process in map(str.split, lines)]

    def run(self, number: int, times: int, seed: int, until) -> list[tuple[int, float, float]]:
        """Send a signal so many times; returns for each the steps that were done again, the seconds to the next step, and
        those to the checkpoint that it asked for."""
        moments = random.Random(seed)
        log = self.folder / "train.log"
        with log.open("w") as file:
            command = [sys.executable, "-m", "mambacl.platform.cli", "train", str(self.folder / "lost.yaml")]
            driver = subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=file, stderr=file)
        hit, sent = set(), []

        def at_work() -> int | None:
            """The process that trains now, unless it is one that was hit."""
            process = self.steps()[-1][2] if self.steps() else None
            return None if process in hit else process

        try:
            for _ in range(times):
                process = until(at_work, driver, log)
                time.sleep(moments.uniform(0, LATEST))
                os.kill(process, number)
                hit.add(process)
                sent.append(time.time())
            until(at_work, driver, log)
            assert driver.wait(timeout=500) == 0, log.read_text()
        finally:
            driver.terminate()
            driver.wait()
        found = []
        for before, after in zip(self.steps(), self.steps()[1:], strict=False):
            if before[2] != after[2]:
                moment = sent[len(found)]
                found.append((before[0] + 1 - after[0], after[1] - moment, before[1] - moment))
        assert len(found) == times
        return found

    @property
    def last(self) -> checkpoint.Checkpoint:
        [run] = (self.folder / "runs" / "lost" / "train").iterdir()
        return checkpoint.newest(run)

    def undisturbed(self) -> checkpoint.Checkpoint:
        """The same, trained without signals and without Ray."""
        run = self.folder / "undisturbed"
        command = [sys.executable, "-c", ALONE, str(self.folder / "lost.yaml"), str(run)]
        subprocess.run(command, env=self.environment, check=True, timeout=200)
        return checkpoint.newest(run)


def weights(found):
    return (found.path / "model.safetensors").read_bytes()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("trainer", "times"),
    [
        pytest.param("ray", 2, marks=pytest.mark.brief),
        pytest.param("ray", 10, marks=pytest.mark.long),
        pytest.param("inline", 10, marks=pytest.mark.long),
    ],
)
def test_a_killed_worker_costs_one_interval(tmp_path, with_troubled, until, tell_fault, trainer, times):
    disturbed = Disturbed(tmp_path, with_troubled, times, trainer, retries=times)
    found = disturbed.run(signal.SIGKILL, times, seed=times, until=until)
    lost = max(again for again, _, _ in found)
    assert 0 <= lost <= EVERY
    assert disturbed.last.progress.stopped == "all steps done"
    assert weights(disturbed.last) == weights(disturbed.undisturbed())
    recovery = max(seconds for _, seconds, _ in found)
    tell_fault(
        1, f"training process killed ({trainer})", times, "same bits", f"{lost} of {EVERY} steps", f"{recovery:.0f} s"
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trainer", ["ray", "inline"])
def test_a_worker_that_is_asked_to_leave_loses_nothing_and_is_not_counted_as_a_failure(
    tmp_path, with_troubled, until, tell_fault, trainer
):
    times = 3
    disturbed = Disturbed(tmp_path, with_troubled, times, trainer, retries=0)
    found = disturbed.run(signal.SIGTERM, times, seed=1, until=until)
    assert [again for again, _, _ in found] == [0] * times, "no step is done again"
    grace = max(seconds for _, _, seconds in found)
    assert grace < GRACE
    last = disturbed.last
    assert (last.progress.stopped, last.progress.preempted) == ("all steps done", times)
    assert weights(last) == weights(disturbed.undisturbed())
    recovery = max(seconds for _, seconds, _ in found)
    tell_fault(12, f"SIGTERM to the training process ({trainer})", times, "same bits", f"0 steps; left after {grace:.1f} s",
               f"{recovery:.0f} s")  # fmt: skip
