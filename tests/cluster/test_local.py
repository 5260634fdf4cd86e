"""`cluster/local`: real nodes, PostgreSQL and MLflow, closed to strangers, ended without a trace, begun again as they were."""

import base64
import json
import os
import shutil
import stat
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest


def listening(port: int) -> set[str]:
    """Addresses on which something listens for TCP at this port, as the kernel writes them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address, at = fields[1].split(":")
            if fields[3] == "0A" and int(at, 16) == port:
                found.add(address)
    return found


def group(leader: int) -> set[int]:
    """Processes of a process group."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getpgid(int(folder.name)) == leader:
                    found.add(int(folder.name))
            except ProcessLookupError:
                pass
    return found


def status(url: str, headers: dict[str, str] | None = None) -> int:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def cluster(make_cluster):
    if shutil.which("pg_config") is None:
        pytest.skip("no PostgreSQL (Debian: apt-get install postgresql libpq-dev)")
    made = make_cluster()
    made.up("--workers", "1")
    return made


def processes(cluster):
    return json.loads((cluster.folder / "state.json").read_text())["processes"]


def test_only_this_machine_reaches_its_servers(cluster):
    """Ray's own ports, which nodes talk on, are open to the network whatever one asks for; they want the token."""
    ports = json.loads((cluster.folder / "state.json").read_text())["ports"]
    for server in ("postgres", "mlflow", "dashboard"):
        assert listening(ports[server]) == {"0100007F"}, f"{server}: 127.0.0.1 and nothing else"


def test_ray_asks_for_its_token(cluster):
    jobs = cluster.environment["RAY_API_SERVER_ADDRESS"] + "/api/jobs/"
    token = (cluster.folder / "token").read_text()
    assert status(jobs) == 401
    assert status(jobs, {"Authorization": f"Bearer {'0' * len(token)}"}) in (401, 403)
    assert status(jobs, {"Authorization": f"Bearer {token}"}) == 200


def test_mlflow_asks_for_a_password_and_knows_its_name(cluster):
    experiments = cluster.environment["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/experiments/search?max_results=1"
    pair = f"admin:{cluster.environment['MLFLOW_TRACKING_PASSWORD']}".encode()
    known = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    assert status(experiments) == 401
    assert status(experiments, known) == 200
    assert status(experiments, known | {"Host": "elsewhere.example"}) == 403


def test_nobody_else_reads_its_secrets(cluster):
    secret = {"token", "env", "mlflow-key", "mlflow-password", "postgres-password"}
    assert {name: stat.S_IMODE((cluster.folder / name).stat().st_mode) for name in secret} == dict.fromkeys(
        secret, 0o600
    )
    words = [
        (cluster.folder / name).read_text() for name in ("token", "mlflow-key", "mlflow-password", "postgres-password")
    ]
    for process in group(os.getpid()) | {p for q in processes(cluster).values() for p in group(q["pid"])}:
        line = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
        assert not any(word in line for word in words), "every user of a machine can list command lines"


def test_up_starts_what_does_not_run_and_down_ends_it_all(cluster, until, runs):
    before = processes(cluster)
    assert list(before) == ["postgres", "mlflow", "head", "worker-1"]
    cluster.kill("worker-1")
    cluster.up("--workers", "1")
    after = processes(cluster)
    assert after.pop("worker-1") != before.pop("worker-1")
    assert after == before
    members = [psutil.Process(pid) for process in processes(cluster).values() for pid in group(process["pid"])]
    cluster.down()
    until(lambda: not any(map(runs, members)), seconds=20)
    assert processes(cluster) == {}
    assert "database system is shut down" in (cluster.folder / "postgres.log").read_text(), "it was asked, not killed"
