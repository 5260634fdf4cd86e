"""Fault 7: the newest checkpoint is damaged or missing, the disk is full, or the writer is killed just before it is done."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

EVERY = 10
CONFIG = {
    "name": "kept",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "alpaca", "width": 64},
    "train": {"steps": 40, "batch": 4, "warmup": 5, "evaluate_every": EVERY, "evaluate_episodes": 6},
}
TRAIN = f"""
import os, pathlib, resource, signal, sys
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
run = pathlib.Path(sys.argv[1])

def train():
    meta_train(parse(ExperimentConfig, {CONFIG!r}), run, Worker(), lambda saved: None, lambda step, point: False)
"""


def train(run, until=40):
    meta_train(parse(ExperimentConfig, CONFIG), run, Worker(), lambda saved: None, lambda step, point: step >= until)


def in_a_child(code, run):
    return subprocess.run([sys.executable, "-c", TRAIN + code, str(run)], capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed")
    train(run)
    return checkpoint.newest(run).weights


def same(run, weights):
    found = checkpoint.newest(run).weights
    return all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def steps(run):
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def damage(path, how):
    if how == "missing":
        shutil.rmtree(path)
    elif how == "without its manifest":
        (path / "manifest.json").unlink()
    else:
        file = path / "optimizer.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if how == "cut off" else content[:-1] + bytes([content[-1] ^ 1]))


def test_a_lost_checkpoint_costs_one_interval(undisturbed, tmp_path, tell_fault):
    began, ways = time.monotonic(), ("missing", "without its manifest", "cut off", "one bit changed")
    for how in ways:
        run = tmp_path / how
        train(run, until=30)
        damage(run / "checkpoints" / "step-00000030", how)
        assert checkpoint.newest(run).progress.step == 20
        train(run)
        assert same(run, undisturbed), how
    took = (time.monotonic() - began) / len(ways)
    tell_fault(7, "newest checkpoint damaged or missing", len(ways), "same bits", f"{EVERY} steps", f"{took:.1f} s")


def test_a_kill_between_write_and_rename_costs_one_interval(undisturbed, tmp_path, tell_fault):
    """At the very moment: the process ends itself where it would rename."""
    killed = """
rename = pathlib.Path.rename
def end(self, target):
    if self.name.startswith(".draft-00000030"):
        assert (self / checkpoint.MANIFEST).is_file()
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.rename = end
train()
"""
    assert in_a_child(killed, tmp_path).returncode == -signal.SIGKILL
    assert steps(tmp_path) == [10, 20]
    assert len(list((tmp_path / "checkpoints").glob(".draft-00000030-*"))) == 1
    train(tmp_path)
    assert same(tmp_path, undisturbed)
    assert not list((tmp_path / "checkpoints").glob(".draft-*"))
    tell_fault(7, "killed between write and rename of a checkpoint", 1, "same bits", f"{EVERY} steps")


@pytest.mark.parametrize("small_disk", [2], indirect=True)
def test_a_full_disk_keeps_the_older_checkpoint_and_gets_its_room_back(undisturbed, small_disk, tell_fault):
    """Real ENOSPC: the attempt ends with that reason, nothing half-written stays, and with room the run goes on."""
    run = small_disk / "run"
    train(run, until=20)
    free = shutil.disk_usage(small_disk).free
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(free - 2**14))
    full = in_a_child("train()", run)
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert steps(run) == [10, 20]
    assert checkpoint.newest(run).progress.step == 20
    assert not list((run / "checkpoints").glob(".draft-*"))
    ballast.unlink()
    train(run)
    assert same(run, undisturbed)
    tell_fault(7, "disk full while a checkpoint is written", 1, "same bits once there is room", f"{EVERY} steps")


def test_a_file_that_may_not_grow_is_the_same(undisturbed, tmp_path, tell_fault):
    """EFBIG of a quota."""
    train(tmp_path, until=20)
    limited = in_a_child("resource.setrlimit(resource.RLIMIT_FSIZE, (2000, -1))\ntrain()", tmp_path)
    assert limited.returncode == 1
    assert "File too large" in limited.stderr
    assert steps(tmp_path) == [10, 20]
    assert not list((tmp_path / "checkpoints").glob(".draft-*"))
    train(tmp_path)
    assert same(tmp_path, undisturbed)
    tell_fault(7, "quota reached while a checkpoint is written", 1, "same bits once there is room", f"{EVERY} steps")
