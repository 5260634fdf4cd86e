"""Fault 6: the head node is lost in the middle of a submitted job and started again, with and without storage for what the
head knows of its cluster."""

import json
import shlex
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
import json, sys
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient()
if len(sys.argv) > 1:
    client.submit_job(entrypoint=sys.argv[1], submission_id=sys.argv[2])
print(json.dumps({job.submission_id: job.status for job in client.list_jobs() if job.submission_id}))
"""


def jobs(cluster, *submitted):
    """The state of each job, after one more was submitted with its command line and name."""
    asked = subprocess.run(
        [sys.executable, "-c", JOBS, *submitted], env=cluster.environment, capture_output=True, text=True, timeout=100
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
    learner = EXPERIMENT["learner"] | {"trace": str(trace)}
    experiment = EXPERIMENT | {"learner": learner, "storage": {"root": str(root)}}
    (tmp_path / "headless.yaml").write_text(yaml.safe_dump(experiment))
    mambacl = [sys.executable, "-m", "mambacl.platform.cli"]

    def moments():
        lines = trace.read_text().splitlines() if trace.is_file() else []
        return [float(line.split()[1]) for line in lines]

    jobs(cluster, shlex.join([*mambacl, "sweep", str(tmp_path / "headless.yaml")]), "first")
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
        assert list(jobs(cluster)) == ["first"]
    until(lambda: time.time() - max(moments()) > 2)
    before = len(moments())

    resume = shlex.join([*mambacl, "resume", "headless", "--storage.root", str(root)])
    jobs(cluster, resume, "second")
    until(lambda: jobs(cluster)["second"] not in ("PENDING", "RUNNING"))
    assert jobs(cluster)["second"] == "SUCCEEDED"
    if where != "nothing":  # Ray looks after the jobs that it kept once another is submitted
        until(lambda: jobs(cluster)["first"] == "FAILED")
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
