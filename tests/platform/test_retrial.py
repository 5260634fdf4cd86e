"""What follows on an attempt that ended before its run was over: less memory at a time, another try, or a failure with its reason."""

import json
import os
import subprocess
import sys

import pytest
from ray.exceptions import ActorUnavailableError

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import failure
from mambacl.platform.training.run import Retrial
from mambacl.tasks.config import parse

TRIED = """
import json, logging, pathlib, sys
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint, failure
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.run import train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

logging.basicConfig(level=logging.INFO, format="%(message)s")
root = pathlib.Path(sys.argv[1])
attempts = 0

def attempt(job):
    global attempts
    attempts += 1
    config = parse(ExperimentConfig, job["config"])
    meta_train(
        config, pathlib.Path(job["run"]), Worker(), lambda saved: None, lambda step, point: False,
        accumulate=job["accumulate"],
    )

def tried(name, accumulate=1, **trouble):
    global attempts
    attempts = 0
    config = parse(ExperimentConfig, {
        "name": "troubled",
        "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
        "learner": {"name": "troubled", "width": 8, **trouble},
        "train": {"steps": 40, "batch": 4, "warmup": 5, "evaluate_every": 10, "evaluate_episodes": 6,
                  "accumulate": accumulate},
        "resources": {"retries": 2},
        "storage": {"root": str(root)},
    })
    run = root / name
    open_record(config, run)
    error = None
    try:
        train(config, run, None, attempt)
    except failure.TrainingFailed as failed:
        error = failed
    close_record(run, error)
    last, record = checkpoint.newest(run), records.read(run)
    return config, run, {
        "attempts": attempts, "status": record.status, "tags": dict(record.tags),
        "steps": last.progress.step if last else 0, "accumulate": last.progress.accumulate if last else None,
        "curve": [point["step"] for point in last.curve if "train/loss" in point] if last else [],
        "traceback": (run / failure.TRACEBACK).read_text() if (run / failure.TRACEBACK).is_file() else "",
        "weights": (last.path / "model.safetensors").read_bytes().hex() if last else None,
    }

found = {name: tried(name, **arguments)[2] for name, arguments in {
    "hungry at once": {"trouble": "hungry"},
    "in two parts": {"accumulate": 2},
    "hungry later": {"trouble": "hungry", "at": 25},
    "starving": {"trouble": "starving", "at": 15},
    "nan": {"trouble": "nan", "at": 15},
}.items()}
config, run, found["exception"] = tried("exception", trouble="exception", at=15)
store = Store(config.storage)
delivered = store.client.get_run(store.deliver(run).run_id)
found["delivered"] = {
    "status": delivered.info.status, "tags": dict(delivered.data.tags),
    "files": [file.path for file in store.client.list_artifacts(delivered.info.run_id)],
}
_, _, found["mended"] = tried("exception")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(troubled, tmp_path_factory):
    """What became of runs of a learner with troubles, and the log of it all."""
    path = os.pathsep.join([str(troubled), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run(
        [sys.executable, "-c", TRIED, str(tmp_path_factory.mktemp("runs"))],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1]) | {"log": child.stderr}


def test_without_memory_for_a_batch_it_goes_on_in_more_parts(found):
    """The same batch, and the same weights as with a config that asks for so many parts."""
    run = found["hungry at once"]
    assert (run["attempts"], run["status"], run["steps"], run["accumulate"]) == (2, "FINISHED", 40, 2)
    assert run["tags"]["mambacl.accumulate"] == "2, for lack of memory"
    assert run["weights"] == found["in two parts"]["weights"]
    assert "hungry at once: out of memory; it goes on with accumulate = 2" in found["log"]
    assert "mambacl.accumulate" not in found["in two parts"]["tags"]


def test_it_goes_on_from_the_newest_checkpoint(found):
    run = found["hungry later"]
    assert (run["attempts"], run["steps"], run["accumulate"]) == (2, 40, 2)
    assert run["curve"] == [10, 20, 30, 40]
    assert "continuing hungry later from step 20" in found["log"]


def test_without_memory_for_a_single_episode_it_fails(found):
    run = found["starving"]
    assert (run["attempts"], run["status"], run["steps"]) == (3, "FAILED", 10), "in 1, 2 and 4 parts"
    assert run["tags"]["mambacl.reason"].startswith("out of memory with one episode at a time: OutOfMemoryError: CUDA")
    assert "torch.OutOfMemoryError" in run["traceback"]


def test_a_loss_that_is_no_number_is_not_tried_again(found):
    run = found["nan"]
    assert (run["attempts"], run["status"], run["steps"]) == (1, "FAILED", 10)
    assert run["tags"]["mambacl.reason"] == "loss is nan at step 16"
    assert "Diverged" in run["traceback"]


def test_an_exception_is_tried_again_and_then_told_with_its_traceback(found):
    run, delivered = found["exception"], found["delivered"]
    assert (run["attempts"], run["status"]) == (3, "FAILED")
    assert run["tags"]["mambacl.reason"] == delivered["tags"]["mambacl.reason"] == "ValueError: the learner is broken"
    assert 'troubled.py", line' in run["traceback"]
    assert delivered["status"] == "FAILED"
    assert "traceback.txt" in delivered["files"]


def test_a_failed_run_that_is_mended_goes_on(found):
    run = found["mended"]
    assert (run["attempts"], run["status"], run["steps"], run["traceback"]) == (1, "FINISHED", 40, "")
    assert "mambacl.reason" not in run["tags"]


def test_the_cpu_refusing_memory_is_the_same(tmp_path):
    """A real limit on the address space: activations of the whole batch do not fit, those of a part do."""
    code = """
import logging, pathlib, resource, sys
import torch
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.run import train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

logging.basicConfig(level=logging.INFO, format="%(message)s")
torch.set_num_threads(1)
config = parse(ExperimentConfig, {
    "name": "large",
    "task": {"name": "sine", "tasks": 40, "shots": 5, "queries": 1},
    "learner": {"name": "attention", "layers": 1, "width": 128, "heads": 4},
    "selectivity": {"loss": "none"},
    "train": {"steps": 1, "batch": 64, "evaluate_episodes": 1},
})

def attempt(job):
    meta_train(config, pathlib.Path(job["run"]), Worker(), lambda s: None, lambda s, p: False, accumulate=job["accumulate"])

attempt({"run": sys.argv[1] + "-before", "accumulate": 64})  # what is imported on the way is there before the limit
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20, -1))
train(config, pathlib.Path(sys.argv[1]), None, attempt)
print(checkpoint.newest(pathlib.Path(sys.argv[1])).progress.accumulate)
"""
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) > 1
    assert "out of memory; it goes on with accumulate" in child.stderr


def test_a_worker_that_is_out_of_reach_is_not_counted(tmp_path):
    """What Ray says of one whose connection broke while its node lives on; of the same run a real failure counts."""
    config = parse(ExperimentConfig, {"name": "cut", "resources": {"retries": 0}})
    retrial = Retrial(config, tmp_path)
    retrial.after(ActorUnavailableError("RPC error: recvmsg: Connection reset by peer", None))
    with pytest.raises(failure.TrainingFailed, match="ValueError: the learner is broken"):
        retrial.after(ValueError("the learner is broken"))


BOOKED = """
import pathlib, sys
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.sweeping.book import Book
from mambacl.platform.sweeping.trial import trial_folder
from mambacl.platform.training import failure
from mambacl.tasks.config import parse

ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
root = pathlib.Path(sys.argv[1])
config = parse(ExperimentConfig, {"name": "cut", "resources": {"retries": 1}})
storage = StorageContext(storage_path=str(root / "tune"), experiment_dir_name="cut", trial_dir_name="0")
trial = Trial("cut", config={"number": 0, "values": {}}, stub=True, storage=storage)
pathlib.Path(trial.local_path).mkdir(parents=True)
trial_folder(root, 0).mkdir(parents=True)
book = Book(config, root, None)
for error in [ActorDiedError(), ActorUnavailableError("recvmsg: Connection reset by peer", None), ActorDiedError()]:
    trial.handle_error(error)
    book.on_trial_recover(0, [trial], trial)
    print(failure.read(trial_folder(root, 0)) is not None)
"""


def test_nor_is_a_trial_that_is_out_of_reach(tmp_path):
    """Ray Tune hands on only the words of its error; a process that died before and after it counts."""
    child = subprocess.run([sys.executable, "-c", BOOKED, str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split()[-3:] == ["False", "False", "True"]
