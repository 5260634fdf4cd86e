"""What is submitted, short of a cluster: mistakes end here in a line, files come along, secrets and data do not."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import yaml

from mambacl.platform import shipping
from mambacl.platform.alone import alone_in
from mambacl.platform.arguments import parse_experiment
from mambacl.platform.commands.submit import main
from mambacl.platform.commands.sweep import Options
from mambacl.platform.origin import Origin, of_job, revision
from mambacl.platform.studying.config import entries_of, find_study
from mambacl.platform.submitting.command import Job, lay_out
from mambacl.platform.submitting.request import understand
from mambacl.tasks.config import ConfigError

SHARED = ("--storage.root", "/shared/runs")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "submit: cannot run ''; what can be: train, sweep, study, evaluate, resume"),
        (["list"], "submit: cannot run 'list'; what can be: train, sweep, study, evaluate, resume"),
        (["swep", "quickstart"], "submit: cannot run 'swep' (did you mean 'sweep'?)"),
        (["sweep", "quickstrat", *SHARED], "experiment: no preset or file 'quickstrat' (did you mean 'quickstart'?)"),
        (["train", "quickstart", "--train.stepz", "3", *SHARED], "train.stepz: unknown field"),
        (["sweep", "quickstart", "--search", "{}", *SHARED], "search: a sweep needs at least one field"),
        (["sweep", "quickstart"], "storage.root: 'runs' would lie in a temporary folder of the job"),
        (["resume", "quickstart"], "storage.root: 'runs' would lie"),
        (["sweep", "quickstart", "--address", "http://a:1", *SHARED], "address: a job runs on the cluster that it is"),
        (["train", "omniglot", *SHARED], "task.path: 'omniglot_background_32.npz' starts from a folder of this machine"),
        (["study", "regularisation", "--size", "cpu", *SHARED], "task.path: 'omniglot_background_32.npz' starts"),
        (["evaluate", "models:/a@champion", "--suite", "lenght", *SHARED], "suite: unknown 'lenght'"),
        (["evaluate", "runs/a", *SHARED], "models: 'runs/a' starts from a folder of this machine"),
        (
            ["sweep", "quickstart", "--storage.study_uri", "postgresql://me:s3cret@db/optuna", *SHARED],
            "storage.study_uri: holds a password",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_there_is_refused_here_in_a_line(words, line):
    with pytest.raises(ConfigError) as caught:
        understand(words)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_forgotten_dash_is_told():
    with pytest.raises(
        ConfigError, match=r"^submit: the command stands after --, as in: mambacl submit --wait -- sweep"
    ):
        main(["--wait", "sweep", "quickstart"])


def test_files_come_along_with_their_bases_wherever_they_lie(tmp_path, monkeypatch):
    """Unpacked elsewhere, the same words mean the same experiment and the same study."""
    away, here = tmp_path / "away", tmp_path / "here"
    away.mkdir()
    here.mkdir()
    (away / "mine.yaml").write_text("base: quickstart\ntrain: {steps: 7}\n")
    (here / "mine.yaml").write_text(f"base: {away}/mine.yaml\nname: mine\nsearch: {{seed: {{int: [0, 3]}}}}\n")
    study = {"name": "both", "experiments": {"a": {"base": "mine.yaml"}, "b": {"base": "../away/mine.yaml", "seed": 3}}}
    (here / "both.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sweep = understand(["sweep", "mine.yaml", "--seed", "5", *SHARED])
    both = understand(["study", "both.yaml", *SHARED])
    wanted = parse_experiment("sweep", Options, ["mine.yaml", "--seed", "5", *SHARED])[0]
    entries = [entry.experiment for entry in entries_of(find_study("both.yaml"), {})]
    assert wanted.train.steps == 7
    assert (sweep.folder, sweep.digest) == (Path("/shared/runs/mine"), wanted.digest)
    for request in (sweep, both):
        folder = lay_out(request)
        monkeypatch.chdir(folder)
        if request is sweep:
            assert parse_experiment("sweep", Options, list(request.words[1:]))[0] == wanted
        else:
            assert [entry.experiment for entry in entries_of(find_study(request.words[1]), {})] == entries


def test_a_password_in_a_file_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "{base: quickstart, storage: {root: /shared, tracking_uri: 'https://me:s3cret@mlflow'}}"
    )
    with pytest.raises(ConfigError, match=r"storage\.tracking_uri: holds a password") as caught:
        understand(["sweep", str(tmp_path / "mine.yaml")])
    assert "s3cret" not in str(caught.value)


def test_nothing_secret_of_the_environment_goes_along(monkeypatch):
    """Everybody who sees the dashboard reads a job's runtime environment, metadata and command."""
    for name in (
        "RAY_AUTH_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_URI",
        "MAMBACL_STUDY_URI",
        "AWS_SECRET",
    ):
        monkeypatch.setenv(name, "s3cret")
    job = Job.of(understand(["sweep", "quickstart", *SHARED]), None)
    assert set(job.runtime_env["env_vars"]) == {"RAY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_WAIT_TIME_S"}
    assert "s3cret" not in json.dumps([job.entrypoint, job.runtime_env, job.metadata])


def test_the_plain_line_says_all_of_a_job():
    request = understand(["sweep", "quickstart", "--train.curriculum", "[{until: 5, tasks: 3}]", *SHARED])
    job = Job.of(request, None)
    assert re.fullmatch(r"sweep-quickstart-\d{8}-\d{4}-[0-9a-f]{4}", job.id)
    assert (job.metadata["folder"], job.metadata["config"]) == ("/shared/runs/quickstart", request.digest)
    line, _, entrypoint = job.line("http://head:8265", wait=True).partition(" -- ")
    assert shlex.split(entrypoint) == ["python", "-m", "mambacl.platform.cli", *request.words]
    words = shlex.split(line)
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert json.loads(options["--runtime-env-json"]) == job.runtime_env
    assert json.loads(options["--metadata-json"]) == job.metadata
    assert (options["--address"], options["--submission-id"]) == ("http://head:8265", job.id)


def test_all_of_the_code_goes_along_and_nothing_else(tmp_path):
    """What we count is what Ray packs, and what git knows of the three roots."""
    from ray._private.runtime_env.packaging import create_package  # after mambacl, whose switches Ray reads

    roots = shipping.source_roots()
    assert [str(root).rpartition("mambacl")[0].rstrip("/").rpartition("/")[2] for root in roots] == list(shipping.PARTS)
    listed = subprocess.run(["git", "-C", roots[0], "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode == 0:
        assert {roots[0] / name for name in listed.stdout.split("\0") if name} <= set(shipping.shipped(roots[0]))
    module = tmp_path / "mambacl"
    for name in ("part/code.py", "part/data/__init__.py", "part/plan.yaml", "part/__pycache__/code.pyc", ".git/config",
                 "part/.venv/lib.py", "runs/mine/run.json", "part/images.npz", "part/weights.safetensors"):  # fmt: skip
        (module / name).parent.mkdir(parents=True, exist_ok=True)
        (module / name).write_text(name)
    create_package(
        str(module), tmp_path / "a.zip", include_gitignore=True, include_parent_dir=True,
        excludes=list(shipping.EXCLUDES),
    )  # fmt: skip
    packed = {name.removeprefix("mambacl/") for name in zipfile.ZipFile(tmp_path / "a.zip").namelist()}
    assert packed == {str(file.relative_to(module)) for file in shipping.shipped(module)}
    assert packed == {"part/code.py", "part/data/__init__.py", "part/plan.yaml"}


def test_too_much_is_refused_with_the_largest_files(tmp_path):
    (tmp_path / "small.py").write_text("x = 1")
    with (tmp_path / "forgotten.bin").open("wb") as file:
        file.truncate(shipping.LIMIT + 2**20)
    with pytest.raises(
        ConfigError, match=r"^submit: 65 MiB would go along, more than 64 MiB; the largest are \S+forgotten"
    ):
        shipping.check_size([tmp_path])


def test_an_installed_package_ships_nothing(tmp_path):
    """As in site-packages, and as in a worker that has unpacked what came along."""
    (tmp_path / "mambacl").mkdir()
    for root in shipping.source_roots():
        for part in root.iterdir():
            (tmp_path / "mambacl" / part.name).symlink_to(part)
    code = "from mambacl.platform import shipping; print(shipping.__file__, shipping.code_of_checkout())"
    child = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert child.stdout.split() == [f"{tmp_path}/mambacl/platform/shipping.py", "{}"], child.stderr


def test_runs_of_a_job_carry_its_submitter():
    there = Origin("ada", "c0ffee", True)
    ray_adds = {"job_submission_id": "sweep-1", "job_name": "sweep-1"}
    found = of_job(there.metadata | ray_adds)
    assert found == Origin("ada", "c0ffee", True, "sweep-1")
    assert found.tags == {
        "mlflow.user": "ada", "mlflow.source.git.commit": "c0ffee", "mambacl.dirty": "true", "mambacl.ray_job": "sweep-1",
    }  # fmt: skip
    assert "mlflow.source.git.commit" not in of_job(ray_adds).tags, "of a job without our metadata no commit is known"


def test_the_commit_is_that_of_the_code_and_an_edit_is_seen(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    assert revision([tmp_path]) == (None, False)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    commit, dirty = revision([tmp_path / "code"])
    assert re.fullmatch("[0-9a-f]{40}", commit or "")
    assert not dirty
    (tmp_path / "notes").write_text("not code")
    assert revision([tmp_path / "code"]) == (commit, False)
    (tmp_path / "code" / "new.py").write_text("2")
    assert revision([tmp_path / "code"]) == (commit, True)


def test_a_folder_has_one_driver_and_a_killed_one_leaves_it_free(tmp_path):
    code = f"""
import time
from pathlib import Path
from mambacl.platform.alone import alone_in
with alone_in(Path({str(tmp_path)!r})):
    print("in", flush=True)
    time.sleep(600)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ConfigError, match=rf"name: process {other.pid} on \S+ works in {tmp_path} already"):
            alone_in(tmp_path).__enter__()
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with alone_in(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()}"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass
