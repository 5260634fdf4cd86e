"""Submission to a real cluster: an edited checkout, a sweep that outlives who submitted it, and what nobody may read."""

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from mambacl.platform.training import checkpoint

ROOT = Path(__file__).parents[2]
PATIENCE = float(os.environ.get("MAMBACL_PATIENCE", "300"))

TINY = {
    "name": "tiny",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "mamba", "layers": 1, "width": 8, "state_size": 4},
    "train": {"steps": 40, "batch": 2, "warmup": 5, "evaluate_every": 20, "evaluate_episodes": 4},
    "search": {"train.learning_rate": {"log": [0.001, 0.01]}},
    "sweep": {"trials": 2, "grace": 40},
}
EDITS = {
    "training/bookkeeping.py": ('"mlflow.source.name": "mambacl"', '"mlflow.source.name": "edited"'),
    "training/ray_worker.py": (
        "            _train(job, worker, report, leaving)\n",
        """            _train(job, worker, report, leaving)
            (Path(job["run"]) / "edited").touch()
            while not (Path(job["run"]).parents[2] / "go").exists():
                __import__("time").sleep(0.1)
""",
    ),
}
"""What is edited in the checkout, in code of drivers and in code of workers: these end when they are told to."""


class User:
    """Somebody with a checkout of their own, and a shell that means the cluster."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.copy, self.runs = folder, folder / "checkout", folder / "runs"
        for part in ("platform", "learners", "tasks"):
            shutil.copytree(ROOT / part, self.copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for command in ("init", "add .", "-c user.name=a -c user.email=a@b commit --quiet --message first"):
            subprocess.run(["git", "-C", self.copy, *command.split()], check=True, capture_output=True)
        for name, (before, after) in EDITS.items():
            file = self.copy / "platform" / "mambacl" / "platform" / name
            text = file.read_text()
            assert text.count(before) == 1
            file.write_text(text.replace(before, after))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        path = os.pathsep.join(str(self.copy / part) for part in ("platform", "learners", "tasks"))
        # RAY_ADDRESS would do; jobs need no more than their server.
        self.environment = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
        self.environment["PYTHONPATH"] = path

    def submit(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments), env=self.environment | changes, cwd=self.folder, capture_output=True, text=True,
            timeout=2 * PATIENCE,
        )  # fmt: skip

    def start(self, log: Path, *arguments: str, terminal: int | None = None) -> subprocess.Popen:
        with log.open("w") as file:
            return subprocess.Popen(
                self.command(*arguments), env=self.environment, cwd=self.folder, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL if terminal is None else terminal, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mambacl.platform.cli", "submit", *arguments]

    def jobs(self) -> dict[str, dict]:
        """What everybody who sees the dashboard sees of the jobs, by id."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
        request = urllib.request.Request(
            self.environment["RAY_API_SERVER_ADDRESS"] + "/api/jobs/", headers={"Authorization": f"Bearer {token}"}
        )
        return {job["submission_id"]: job for job in json.load(urllib.request.urlopen(request, timeout=60))}


@pytest.fixture(scope="module")
def user(make_cluster, tmp_path_factory):
    cluster = make_cluster()
    cluster.up("--workers", "1", "--cpus", "1", "--no_mlflow")
    return User(tmp_path_factory.mktemp("user"), cluster.environment)


@pytest.fixture(scope="module")
def swept(user, until):
    """(job, log of the first reader, refusal, log of the last reader): a sweep whose first reader pressed Ctrl-C without a
    terminal, whose second lost the terminal, and which a third followed to its end."""
    sweep = ("--", "sweep", "tiny.yaml", "--storage.root", str(user.runs))
    first, second = user.folder / "first.log", user.folder / "second.log"
    reader = user.start(first, "--wait", *sweep)
    until(lambda: "  step " in first.read_text(), reader, first)
    os.kill(reader.pid, signal.SIGINT)
    assert reader.wait(60) == 130, first.read_text()
    [job] = user.jobs()
    refused = user.submit(*sweep)
    resume = ("--wait", "--", "resume", "tiny", "--storage.root", str(user.runs))
    reader = user.start(second, *resume)
    until(lambda: "Running entrypoint" in second.read_text(), reader, second)
    os.kill(reader.pid, signal.SIGHUP)
    reader.wait(60)
    assert user.jobs()[job]["status"] == "RUNNING", "it goes on without readers"
    (user.runs / "go").touch()
    last = user.submit(*resume)
    assert last.returncode == 0, last.stdout + last.stderr
    assert list(user.jobs()) == [job], "it ran once"
    return job, first.read_text(), refused, last.stdout


def test_a_submitted_sweep_outlives_its_readers_and_resume_attaches(user, swept):
    job, first, refused, last = swept
    assert job.startswith("sweep-tiny-")
    assert f"job {job} goes on" in first
    assert refused.returncode == 2
    assert f"name: job {job} works in {user.runs}/tiny already" in refused.stderr
    assert f"job {job} is at it" in last
    assert "trial-0000  step 40/40" in last, "progress, from the first line on"
    assert user.jobs()[job]["status"] == "SUCCEEDED"


def test_resume_starts_again_what_is_over(user, swept):
    again = user.submit("--wait", "--json", "--", "resume", "tiny", "--storage.root", str(user.runs))
    assert again.returncode == 0, again.stdout + again.stderr
    job = json.loads(again.stdout.splitlines()[-1])["job"]
    assert job.startswith("resume-tiny-")
    assert user.jobs()[job]["status"] == "SUCCEEDED"


def test_driver_and_workers_run_what_is_edited(user, swept):
    runs = list((user.runs / "tiny" / "trials").iterdir())
    assert len(runs) == 2
    assert all((run / "edited").exists() for run in runs), "workers"
    assert {run.data.tags["mlflow.source.name"] for run in runs_in_mlflow(user)} == {"edited"}, "driver"


def runs_in_mlflow(user):
    client = MlflowClient(f"sqlite:///{user.runs}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    return [run for run in runs if "mambacl.config" in run.data.tags]


def test_job_and_runs_say_who_submitted_them_and_with_which_code(user, swept):
    head = subprocess.run(["git", "-C", user.copy, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    metadata = user.jobs()[swept[0]]["metadata"]
    assert (metadata["commit"], metadata["dirty"]) == (head, "true")
    assert len(metadata["config"]) == 64
    for run in runs_in_mlflow(user):
        tags = run.data.tags
        assert (tags["mlflow.source.git.commit"], tags["mambacl.dirty"]) == (head, "true")
        assert tags["mlflow.user"] == metadata["user"]
        if "mambacl.trial" in tags:
            assert tags["mambacl.ray_job"] == swept[0], "the sweep's own run has the last of its jobs"


def test_nobody_reads_a_secret_and_nobody_submits_without_the_token(user, swept):
    token = Path(user.environment["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
    assert token not in json.dumps(user.jobs())
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(user.environment["RAY_API_SERVER_ADDRESS"] + "/api/jobs/", timeout=60)
    wrong = user.folder / "wrong"
    wrong.write_text("0" * 64)
    refused = user.submit("--", "sweep", "tiny.yaml", "--storage.root", str(user.runs), RAY_AUTH_TOKEN_PATH=str(wrong))
    assert refused.returncode == 2
    assert refused.stderr.startswith("mambacl: address: the cluster refuses the token")
    assert refused.stderr.count("\n") == 1


def test_what_never_fits_is_refused_here_and_by_a_driver(user):
    """With the nodes that there are. Drivers are those of the line that --dry_run prints, with the same code and words."""
    large = ("--wait", "--", "train", "tiny.yaml", "--storage.root", str(user.runs), "--resources.cpus", "4")
    line = "resources: 1 worker of 4 CPUs (PACK) do not fit; the cluster has nodes of 1 CPU (2 of them)"
    before = len(user.jobs())
    ours = user.submit(*large)
    assert (ours.returncode, ours.stderr) == (2, f"mambacl: {line}\n"), ours.stdout
    assert len(user.jobs()) == before
    shown = user.submit("--dry_run", *large)
    [plain] = [text for text in shown.stdout.splitlines() if text.startswith("ray job submit")]
    ray = Path(sys.executable).parent / "ray"
    working_dir = json.loads(shlex.split(plain)[shlex.split(plain).index("--runtime-env-json") + 1])["working_dir"]
    done = subprocess.run([ray, *shlex.split(plain)[1:]], env=user.environment, capture_output=True, text=True)
    shutil.rmtree(working_dir)
    assert done.returncode == 1
    assert line in done.stdout


def test_a_stopped_job_writes_a_checkpoint_first(user, until):
    """Ctrl-C at a terminal, and yes."""
    log, (ours, theirs) = user.folder / "stopped.log", pty.openpty()
    train = f"train tiny.yaml --name long --train.steps 1000000 --train.evaluate_every 500 --storage.root {user.runs}"
    reader = user.start(log, "--wait", "--", *train.split(), terminal=theirs)
    until(lambda: "  step " in log.read_text(), reader, log)
    [run] = (user.runs / "long" / "train").iterdir()
    os.kill(reader.pid, signal.SIGINT)
    os.write(ours, b"y\n")
    reader.wait(PATIENCE)
    text = log.read_text()
    assert reader.returncode != 0
    assert "stop the job, too? [y/N] stopping: runs write a checkpoint first" in text
    [job] = [job for job in user.jobs().values() if job["submission_id"].startswith("train-long-")]
    assert job["status"] == "STOPPED", text
    assert checkpoint.newest(run) is not None
    assert json.loads((run / "run.json").read_text())["status"] == "KILLED"
