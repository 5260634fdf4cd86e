"""The MLflow server of the cluster folder, started for real: the command line of the compose file on PostgreSQL, with users,
allowed hosts and artifacts in S3. What it lets in, and what it does not."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import requests
import sqlalchemy
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
COMMAND = yaml.safe_load((CLUSTER / "mlflow" / "compose.yaml").read_text())["services"]["mlflow"]["command"]
IMAGE = dict(re.findall(r"\b(MLFLOW_\w+)=(\S+)", (CLUSTER / "Dockerfile").read_text()))
"""Settings of MLflow that the image holds."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def made_secrets(folder: Path) -> dict[str, str]:
    """What cluster/secrets writes, for nodes and server together."""
    subprocess.run(
        [CLUSTER / "secrets", "mlflow.test", "127.0.0.1"],
        env={**os.environ, "MAMBACL_SECRETS": str(folder)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [line for name in ("nodes", "server") for line in (folder / name / "environment").read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines)


@contextlib.contextmanager
def running(command: list, log: Path, ready: Callable[[], bool], **options) -> Iterator[None]:
    """A process from when `ready()` is true to the end of the block."""
    with log.open("w") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
    try:
        limit = time.monotonic() + 500
        while not ready():
            assert child.poll() is None, f"{command[0]} ended with {child.returncode}: {log.read_text()[-3000:]}"
            assert time.monotonic() < limit, f"{command[0]} was not ready: {log.read_text()[-3000:]}"
            time.sleep(0.2)
        yield
    finally:
        os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs, or a skip."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL (Debian: apt-get install postgresql)")
    return Path(found).parent


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """PostgreSQL as databases.sh lays it out: the settings of nodes and server, and how the server reaches it."""
    programs, port = postgres_programs(), str(free_port())
    # Not pytest's folder, which only root may enter where root runs the tests: PostgreSQL refuses to be root.
    with tempfile.TemporaryDirectory() as name:
        folder, owner = Path(name), {"user": "nobody"} if os.geteuid() == 0 else {}
        known, password = made_secrets(folder / "secrets"), folder / "password"
        password.write_text(known["POSTGRES_PASSWORD"])
        for path in (folder, password) if owner else ():
            shutil.chown(path, "nobody")
        as_role = ["-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"]
        options = {"cwd": folder, **owner}
        subprocess.run([programs / "initdb", "-D", "data", *as_role], check=True, stdout=subprocess.DEVNULL, **options)
        server = [programs / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", port, "-k", folder, "-F"]
        ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
        with running(server, folder / "log", lambda: subprocess.run(ready).returncode == 0, **options):
            known |= {"PGHOST": "127.0.0.1", "PGPORT": port, "PGPASSWORD": known["POSTGRES_PASSWORD"]}
            environment = os.environ | known | {
                "POSTGRES_USER": "mlflow", "POSTGRES_DB": "mlflow", "PATH": f"{programs}:{os.environ['PATH']}",
            }  # fmt: skip
            for command in ([programs / "createdb", "-U", "mlflow", "mlflow"], [CLUSTER / "mlflow" / "databases.sh"]):
                subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            yield known


@pytest.fixture(scope="module")
def objects(postgres) -> Iterator[str]:
    """The address of an S3 server with MLflow's bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        keys = {name.lower(): postgres[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        client = boto3.client("s3", endpoint_url=address, region_name=postgres["AWS_DEFAULT_REGION"], **keys)
        client.create_bucket(Bucket=postgres["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://"))
        yield address
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(postgres, objects, tmp_path_factory) -> Iterator[str]:
    """The address of MLflow's server, which differs from the compose file's in address, port and number of processes."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    other = {"--host": "127.0.0.1", "--port": port, "--workers": 1}
    words = [(option, other.get(option, value)) for option, _, value in (word.partition("=") for word in COMMAND[2:])]
    environment = os.environ | postgres | IMAGE | {
        "PGUSER": "mlflow", "MLFLOW_AUTH_CONFIG_PATH": str(CLUSTER / "mlflow" / "basic_auth.ini"),
        "MLFLOW_S3_ENDPOINT_URL": objects,
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{postgres['MLFLOW_SERVER_ALLOWED_HOSTS']},127.0.0.1:{port}",
    }  # fmt: skip

    def healthy() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{address}/health", timeout=30).ok
        return False

    command = [sys.executable, "-m", *COMMAND[:2], *(f"{option}={value}" for option, value in words)]
    with running(command, tmp_path_factory.mktemp("mlflow") / "log", healthy, env=environment):
        yield address


def asked(server: str, **options) -> int:
    """The status of a question that needs a user."""
    return requests.get(f"{server}/api/2.0/mlflow/experiments/search?max_results=1", timeout=300, **options).status_code


def test_without_a_password_nothing_is_told(server, postgres):
    assert asked(server) == 401
    assert asked(server, auth=("admin", "wrong")) == 401
    assert asked(server, auth=("admin", postgres["MLFLOW_AUTH_ADMIN_PASSWORD"])) == 200


def test_foreign_host_names_are_refused_and_the_configured_one_is_served(server, postgres):
    admin = ("admin", postgres["MLFLOW_AUTH_ADMIN_PASSWORD"])
    assert asked(server, auth=admin, headers={"Host": "rebound.example.com"}) == 403
    assert asked(server, auth=admin, headers={"Host": "mlflow.test:5000"}) == 200


def test_jobs_log_in_as_the_user_that_the_page_makes_and_keep_artifacts_in_s3(server, postgres, monkeypatch, tmp_path):
    """The page's command makes the user, whose run has its file in the bucket without that nodes have the bucket's key."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (CLUSTER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (make_user,) = [block for block in blocks if "users/create" in block]
    commands = "".join(line for line in make_user.splitlines(keepends=True) if not line.startswith("set -a"))
    environment = os.environ | postgres | {"MLFLOW_TRACKING_URI": server}
    subprocess.run(["bash", "-euo", "pipefail", "-c", commands], env=environment, check=True, stdout=subprocess.DEVNULL)
    from mlflow import MlflowClient

    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, postgres[name])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")  # on busy processors
    client = MlflowClient(server, server)
    run = client.create_run(client.create_experiment("sweep"))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    client.log_text(run.info.run_id, "found again", "note.txt")
    fetched = client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))
    assert Path(fetched).read_text() == "found again"


def test_studies_have_a_database_whose_password_opens_no_other(postgres):
    """Jobs know MAMBACL_STUDY_URI."""
    import optuna

    uri = sqlalchemy.make_url(postgres["MAMBACL_STUDY_URI"]).set(port=int(postgres["PGPORT"]))
    study = optuna.create_study(storage=uri.render_as_string(hide_password=False), study_name="sweep")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert len(study.trials) == 1
    for name in ("mlflow", "mlflow_auth", "postgres"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(host=uri.host, port=uri.port, user=uri.username, password=uri.password, dbname=name)
