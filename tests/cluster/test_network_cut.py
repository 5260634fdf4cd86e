"""Fault 4: the network of a node is cut, for half a minute and for ever. Nodes live in network namespaces on a bridge."""

import ipaddress
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mambacl.platform.training import checkpoint

STEPS, EVERY = 300, 20
EXPERIMENT = {
    "name": "cut",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "troubled", "width": 8, "pause": 0.1},
    "train": {"steps": STEPS, "batch": 2, "warmup": 5, "evaluate_every": EVERY, "evaluate_episodes": 4},
}
BOUND = 150.0
"""Seconds after which a run is at work again on another node: the head waits 65 s for a node that is silent."""


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """A bridge of this machine, and namespaces that hang on it. Names and addresses are this process's own."""

    def __init__(self) -> None:
        self.name = f"mcl{os.getpid()}"
        # From the range for benchmarks of networks (RFC 2544), which nobody routes.
        first = ipaddress.ip_address("198.18.0.0") + 16 * (os.getpid() % 2**13)
        self.addresses = [str(first + number) for number in range(1, 15)]
        self.members: list[str] = []

    def open(self) -> None:
        ip("link", "add", self.name, "type", "bridge")
        ip("address", "add", f"{self.addresses[0]}/28", "dev", self.name)
        ip("link", "set", self.name, "up")

    def add(self) -> tuple[str, str]:
        """A namespace on the bridge: its name and its address."""
        number = len(self.members) + 1
        member, address = f"{self.name}-{number}", self.addresses[number]
        self.members.append(member)
        ip("netns", "add", member)
        ip("link", "add", member, "type", "veth", "peer", "name", "eth0", "netns", member)
        ip("link", "set", member, "master", self.name, "up")
        ip("-netns", member, "address", "add", f"{address}/28", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-netns", member, "link", "set", device, "up")
        return member, address

    def cut(self, member: str) -> None:
        ip("link", "set", member, "down")

    def mend(self, member: str) -> None:
        ip("link", "set", member, "up")

    def close(self) -> None:
        """Remove what was added, as far as it came. A namespace lasts as long as a process in it, and would keep its link."""
        for member in self.members:
            subprocess.run(["ip", "link", "delete", member], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", member], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", self.name], check=False, capture_output=True)


@pytest.fixture
def network():
    if shutil.which("ip") is None:
        pytest.skip("no ip (Debian: apt-get install iproute2)")
    made = Network()
    try:
        made.open()
    except subprocess.CalledProcessError as error:
        made.close()
        pytest.skip(f"no networks can be made here: {error.stderr.strip()}")
    yield made
    made.close()


@pytest.fixture
def nodes(network, make_cluster, troubled, kill_with_all, until):
    """(cluster, the process of each namespace's node): a head without CPUs, and two nodes of one CPU."""
    cluster = make_cluster(troubled)
    cluster.up("--workers", "0", "--cpus", "0", "--no_mlflow", "--ip", network.addresses[0])
    ray, made = str(Path(sys.executable).with_name("ray")), {}
    try:
        for _ in range(2):
            member, address = network.add()
            command = ["ip", "netns", "exec", member, ray, "start", "--block", "--num-cpus", "1", "--disable-usage-stats",
                       "--address", cluster.environment["RAY_ADDRESS"], "--node-ip-address", address]  # fmt: skip
            log = cluster.folder / f"{member}.log"
            with log.open("w") as file:
                made[member] = subprocess.Popen(
                    command, env=cluster.environment, stdout=file, stderr=file, start_new_session=True
                )
            until(lambda log=log: "Ray runtime started" in log.read_text(), made[member])
        yield cluster, made
    finally:
        for process in made.values():
            kill_with_all(process.pid)
            process.wait()
        cluster.down()


@pytest.mark.long
@pytest.mark.parametrize(("trainer", "seconds"), [("ray", 30), ("inline", 30), ("ray", None), ("inline", None)])
def test_a_run_goes_on_or_elsewhere(network, nodes, tmp_path, processes_of, until, tell_fault, trainer, seconds):
    cluster, members = nodes
    root, trace, log = tmp_path / "runs", tmp_path / "trace", tmp_path / "log"
    changes = {
        "learner": EXPERIMENT["learner"] | {"trace": str(trace)},
        "storage": {"root": str(root)},
        "resources": {"trainer": trainer, "retries": 0},
    }
    (tmp_path / "cut.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))

    def steps():
        lines = trace.read_text().splitlines() if trace.is_file() else []
        return [(int(step), float(moment), int(process)) for step, moment, process in map(str.split, lines)]

    driver = cluster.start("train", str(tmp_path / "cut.yaml"), log=log)
    until(lambda: len(steps()) > EVERY, driver)
    at_work = steps()[-1][2]
    [member] = [name for name, process in members.items() if at_work in processes_of(process.pid)]
    network.cut(member)
    cut = time.time()
    if seconds:
        time.sleep(seconds)
        network.mend(member)
    assert driver.wait(timeout=500) == 0, log.read_text()
    [run] = (root / "cut" / "train").iterdir()
    assert checkpoint.newest(run).progress.step == STEPS

    taken = steps()
    elsewhere = {process for _, _, process in taken} - {at_work}
    assert elsewhere or seconds
    # Until it notices, a node that is cut off goes on: to the next word that it has for the board.
    if elsewhere:
        after = [moment for _, moment, process in taken if process != at_work]
    else:
        after = [moment for _, moment, _ in taken if moment > cut + seconds]
    back = min(after) - cut
    assert back < (seconds or 0) + BOUND
    again = len(taken) - STEPS
    assert 0 <= again <= 2 * EVERY
    tell_fault(
        4, f"network of a node cut {f'for {seconds} s' if seconds else 'for ever'} ({trainer})", 1,
        "restarted elsewhere" if elsewhere else "went on", f"{again} steps", f"{back:.0f} s after the cut",
    )  # fmt: skip
