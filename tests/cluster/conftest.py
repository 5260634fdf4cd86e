"""What tests of the cluster share: real nodes on this machine, commands that run on them, and the table of faults."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "cluster" / "local"
PATIENCE = float(os.environ.get("MAMBACL_PATIENCE", "300"))
"""Seconds that anything may take at all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes may share the files: those with tests that run alone come first, while nothing else is up, then those
    that take longest, so that no process waits for them at the end."""
    for item in items:
        if "tell_fault" in getattr(item, "fixturenames", ()):
            item.add_marker("fault")
    alone = {item.path for item in items if item.get_closest_marker("alone")}
    longs = Counter(item.path for item in items if item.get_closest_marker("long"))
    items.sort(key=lambda item: (item.path not in alone, -longs[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Tests of several processes run at the same time, but one that is marked `alone` waits for the others, and they for it."""
    place = item.config.cache.mkdir("alone")
    with (place / "door").open("a") as door, (place / "room").open("a") as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits for the room keeps others from going in before
        fcntl.flock(room, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


class Cluster:
    """What `cluster/local` started in a folder."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        """variables: those that its processes and its users have beside this one's."""
        self.folder, self.variables = folder, variables

    def up(self, *options: str) -> None:
        """Start it, or what of it does not run."""
        command = [sys.executable, str(LOCAL), "up", "--folder", str(self.folder), *options]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | self.variables)
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        done = subprocess.run(
            [sys.executable, str(LOCAL), "down", "--folder", str(self.folder)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, name: str) -> None:
        """Kill a node or server with all that it started, as when its machine is lost."""
        kill_all(self.pid(name))

    def processes(self, name: str) -> dict[int, str]:
        """Command lines of all that a node or server started, by their ids."""
        return processes(self.pid(name))

    def pid(self, name: str) -> int:
        """Of the first process of a node or server."""
        return json.loads((self.folder / "state.json").read_text())["processes"][name]["pid"]

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a shell that means this cluster."""
        words = shlex.split((self.folder / "env").read_text())
        return os.environ | self.variables | dict(word.split("=", 1) for word in words if word != "export")

    def start(self, *arguments: str, log: Path) -> subprocess.Popen:
        """Start a command of mambacl on it, in a process group of its own."""
        with log.open("a") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "mambacl.platform.cli", *arguments],
                env=self.environment, cwd=self.folder, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def run(self, *arguments: str, timeout: float = 500) -> subprocess.CompletedProcess:
        """Run a command of mambacl on it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "mambacl.platform.cli", *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip


def processes(ancestor: int) -> dict[int, str]:
    """Command lines of all that a process started, itself or through others, by their ids."""
    lines = {}
    for process in psutil.Process(ancestor).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            lines[process.pid] = shlex.join(process.cmdline())
    return lines


def kill_all(ancestor: int) -> None:
    """Kill a process with all that it started, whatever groups they have made since, and see them dead: what looks for them
    just after the signal may still find them."""
    first = psutil.Process(ancestor)
    family = [first, *first.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not any(map(lives, family)))


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(
    condition: Callable[[], Any],
    process: subprocess.Popen | None = None,
    log: Path | None = None,
    seconds: float = PATIENCE,
) -> Any:
    """What the condition gives as soon as that is true, while a process that writes the log runs."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        said = log.read_text() if log else ""
        assert process is None or process.poll() is None, f"it ended before: {said}"
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {said}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def until():
    """A function that waits for a condition, while a process runs."""
    return wait_for


@pytest.fixture(scope="session")
def processes_of():
    """A function that gives the command lines of all that a process started, by their ids."""
    return processes


@pytest.fixture(scope="session")
def kill_with_all():
    """A function that kills a process with all that it started."""
    return kill_all


@pytest.fixture(scope="session")
def runs():
    """A function that says whether a process runs."""
    return lives


@pytest.fixture(scope="module")
def make_cluster(tmp_path_factory):
    """A function that makes a cluster that is not up yet, with folders for the PYTHONPATH and variables of the environment of
    its processes; whatever tests of the module leave of it ends with them."""
    made = []

    def make(*folders: Path, **variables: str) -> Cluster:
        path = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
        # Ray's sockets lie in it, whose paths must be short.
        made.append(
            Cluster(Path(tempfile.mkdtemp(prefix="mambacl-")), {"PYTHONPATH": os.pathsep.join(path)} | variables)
        )
        return made[-1]

    yield make
    for cluster in made:
        cluster.down()
        shutil.rmtree(cluster.folder)


@pytest.fixture
def cluster(make_cluster):
    """A cluster of the test's own."""
    made = make_cluster()
    yield made
    made.down()


@pytest.fixture
def small_disk(request, tmp_path):
    """A file system of as many MiB as the test asks for."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", place]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of the table."""

    number: int
    """As in the README."""
    fault: str
    times: int
    """How often it was tried."""
    result: str
    loss: str = ""
    """What was lost at most."""
    recovery: str = ""
    """How long it took at most."""


FAULT = "fault"
"""Name of the property of a test's report that holds a row."""


@pytest.fixture
def tell_fault(record_property):
    """A function that adds a row to the table, which is printed after the tests; it takes the fields of Fault."""
    return lambda *fields, **named: record_property(FAULT, dataclasses.asdict(Fault(*fields, **named)))


def pytest_terminal_summary(terminalreporter):
    told = [row for report in terminalreporter.stats.get("passed", []) for row in report.user_properties]
    rows = [Fault(**fields) for name, fields in told if name == FAULT]
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line("| fault | times tried | result | lost at most | recovery |")
    terminalreporter.write_line("| --- | --- | --- | --- | --- |")
    for row in sorted(rows, key=lambda fault: fault.number):
        cells = (row.fault, str(row.times), row.result, row.loss, row.recovery)
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
