"""A worker that is asked to leave its machine writes a checkpoint first, and goes on elsewhere to the same bits."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import Preempted, meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

CONFIG = {
    "name": "asked",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "alpaca", "width": 8},
    "train": {"steps": 40, "batch": 4, "warmup": 5, "evaluate_every": 20, "evaluate_episodes": 6},
}

LISTENING = """
import sys, threading, time
from mambacl.platform.training.notice import Notice

def work():
    with Notice() as notice:
        print("working", flush=True)
        while not notice.heard:
            time.sleep(0.01)
        print("heard", flush=True)
        time.sleep(float(sys.argv[1]))

thread = threading.Thread(target=work)
thread.start()
while thread.is_alive():
    time.sleep(0.01)
print("over", flush=True)
time.sleep(60)
"""


@pytest.fixture
def config():
    return parse(ExperimentConfig, CONFIG)


def train(config, run, leaving=lambda step: False):
    return meta_train(config, run, Worker(), lambda saved: None, lambda step, point: False, leaving)


def told(curve):
    """A curve without the times."""
    times = ("time", "train/seconds", "train/cpu_seconds")
    return [{name: value for name, value in point.items() if name not in times} for point in curve]


def test_it_goes_on_to_the_same_bits_and_the_same_curve(config, tmp_path):
    """Between points of the curve, too: none is lost, none is the mean of fewer steps."""
    train(config, tmp_path / "whole")
    for step in (13, 20, 37):
        with pytest.raises(Preempted, match=f"asked to leave its machine at step {step}"):
            train(config, tmp_path / "cut", lambda done, step=step: done == step)
        assert checkpoint.newest(tmp_path / "cut").progress.step == step
    train(config, tmp_path / "cut")
    whole, cut = checkpoint.newest(tmp_path / "whole"), checkpoint.newest(tmp_path / "cut")
    assert all(torch.equal(cut.weights[name], tensor) for name, tensor in whole.weights.items())
    assert told(cut.curve) == told(whole.curve)
    assert (cut.progress.preempted, whole.progress.preempted) == (3, 0)


def test_asked_at_the_last_step_it_is_over(config, tmp_path):
    assert train(config, tmp_path, lambda step: step == 40).stopped == "all steps done"


def test_a_worker_takes_the_others_along(tmp_path, unused_port):
    """One of two processes is asked; both end at the same step, with one checkpoint of it."""
    code = f"""
import pathlib, sys, torch
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.loop import Preempted, meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", "tcp://127.0.0.1:{unused_port}", rank=rank, world_size=2)
try:
    meta_train(
        parse(ExperimentConfig, {CONFIG!r}), pathlib.Path({str(tmp_path)!r}), Worker(rank, 2), lambda saved: None,
        lambda step, point: False, lambda step: rank == 1 and step == 13,
    )
except Preempted as asked:
    print(asked)
torch.distributed.destroy_process_group()
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(rank)], stdout=subprocess.PIPE) for rank in range(2)]
    said = [worker.communicate(timeout=200)[0].decode().strip() for worker in workers]
    assert said == ["asked to leave its machine at step 13"] * 2
    assert checkpoint.newest(tmp_path).progress.step == 13


def listening(seconds):
    child = subprocess.Popen([sys.executable, "-c", LISTENING, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "working\n"
    time.sleep(0.2)  # until the main thread listens
    os.kill(child.pid, signal.SIGTERM)
    assert child.stdout.readline() == "heard\n"
    return child


def test_a_signal_is_heard_in_another_thread_and_ends_nothing():
    child = listening(0)
    assert child.stdout.readline() == "over\n"
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(timeout=20) == -signal.SIGTERM, "afterwards it ends the process, as before"


def test_a_second_signal_ends_the_process():
    child = listening(60)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(timeout=20) == -signal.SIGTERM
