"""Fault 6: the head node is lost in the middle of a submitted job and started again, with and without storage for what the
head knows of its cluster."""

import json
import shutil
import subprocess
import sys
import time

import optuna
import pytest
import yaml

TRIALS, STEPS, EVERY = 3, 80, 20
EXPERIMENT = {
    "name": "headless",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "troubled", "width": 8, "pause": 0.1},
    "train": {"steps": STEPS, "batch": 2, "warmup": 5, "evaluate_every": EVERY, "evaluate_episodes": 4},
    "search": {"train.learning_rate": {"log": [0.0001, 0.001]}},
    "sweep": {"trials": TRIALS, "grace": STEPS},
    "resources": {"trainer": "inline"},
}
JOBS = """
import json
from ray.job_submission import JobSubmissionClient
print(json.dumps({job.submission_id: job.status for job in JobSubmissionClient().list_jobs() if job.submission_id}))
"""


def jobs(cluster):
    """The state of each job."""
    asked = subprocess.run(
        [sys.executable, "-c", JOBS], env=cluster.environment, capture_output=True, text=True, timeout=100
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout.splitlines()[-1])


@pytest.fixture
def redis(tmp_path, unused_port, until):
    """The address of a Redis server."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis (Debian: apt-get install redis-server)")
    with (tmp_path / "redis.log").open("w") as log:
        server = subprocess.Popen(
            [program, "--bind", "127.0.0.1", "--port", str(unused_port), "--dir", tmp_path], stdout=log, stderr=log
        )
    until(lambda: "Ready to accept connections" in (tmp_path / "redis.log").read_text(), server)
    yield f"127.0.0.1:{unused_port}"
    server.kill()
    server.wait()


@pytest.fixture(params=["nothing", "RocksDB", "Redis"])
def kept_in(request, tmp_path):
    """(its name, variables of the head)."""
    if request.param == "Redis":
        return request.param, {"RAY_REDIS_ADDRESS": request.getfixturevalue("redis")}
    variables = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "head")}
    return request.param, variables if request.param == "RocksDB" else {}


@pytest.mark.long
def test_one_command_resumes_what_was_lost_with_the_head(make_cluster, troubled, kept_in, tmp_path, until, tell_fault):
    where, variables = kept_in
    cluster = make_cluster(troubled, **variables)
    nodes = ("--workers", "2", "--no_mlflow")
    cluster.up(*nodes)
    root, trace = tmp_path / "runs", tmp_path / "trace"
    experiment = EXPERIMENT | {"learner": EXPERIMENT["learner"] | {"trace": str(trace)}}
    (tmp_path / "headless.yaml").write_text(yaml.safe_dump(experiment))

    def submit(*words):
        done = cluster.run("submit", *words, "--storage.root", str(root))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def moments():
        lines = trace.read_text().splitlines() if trace.is_file() else []
        return [float(line.split()[1]) for line in lines]

    submit("--", "sweep", str(tmp_path / "headless.yaml"))
    [first] = jobs(cluster)
    until(lambda: len(moments()) > TRIALS * STEPS / 2)
    workers = {name: cluster.pid(name) for name in ("worker-1", "worker-2")}
    cluster.kill("head")
    lost = time.time()
    cluster.up(*nodes)
    if where == "nothing":
        assert not workers.items() & {name: cluster.pid(name) for name in workers}.items(), "a new head needs new nodes"
        assert jobs(cluster) == {}
    else:
        assert workers == {name: cluster.pid(name) for name in workers}
        assert list(jobs(cluster)) == [first]
    until(lambda: time.time() - max(moments()) > 2)
    before = len(moments())

    said = submit("--wait", "--", "resume", "headless")
    assert "is at it" not in said, "the driver of the job that Ray still believes in is dead"
    if where != "nothing":  # Ray looks after the jobs that it kept once another is submitted
        until(lambda: jobs(cluster)[first] == "FAILED")
    study = optuna.load_study(study_name="headless", storage=f"sqlite:///{root}/optuna.db")
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(n, "COMPLETE") for n in range(TRIALS)]
    again = len(moments()) - TRIALS * STEPS
    assert 0 <= again <= TRIALS * EVERY
    recovery = moments()[before] - lost
    tell_fault(
        6, f"head node lost in a submitted sweep and restarted; it keeps what it knows in {where}", 1,
        "`resume` finishes" + ("" if where == "nothing" else "; the other nodes and the job's record stay"),
        f"{again} steps of {TRIALS * STEPS}", f"{recovery:.0f} s",
    )  # fmt: skip
