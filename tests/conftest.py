"""What all tests share."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

# One thread in every process that tests start: the tensors are tiny, and threads of several processes would spin each other
# to death on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a GPU, Triton's kernels run in its interpreter, which asks for this when something first imports it. Torch knows of
# GPUs, but reads the variable above when it is imported.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tests keep their own tracking stores, whatever the user has.
os.environ.pop("MLFLOW_TRACKING_URI", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first: where two processes share the files, neither waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets that MAMBACL_DATA names."""
    folder = os.environ.get("MAMBACL_DATA")
    if not folder:
        pytest.skip("MAMBACL_DATA names no folder with real data sets")
    return Path(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def unused_port() -> int:
    """A free port of this machine."""
    return free_port()


class MlflowServer:
    """An MLflow server with its store in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.uri = folder, port, f"http://127.0.0.1:{port}"
        self.slowness = 0.0  # seconds that its last start took

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
                   "--artifacts-destination", f"{self.folder}/artifacts", "--host", "127.0.0.1",
                   "--port", str(self.port), "--workers", "1"]  # fmt: skip
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        began = time.monotonic()
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < began + 300, (self.folder / "server.log").read_text()
            time.sleep(0.2)
        self.slowness = time.monotonic() - began

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        return False

    def kill(self) -> None:
        """With its workers, which are in its group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def running_mlflow_server(folder: Path):
    """A server on the store in a folder, new or not. Who is given it may kill it and start it again."""
    server = MlflowServer(folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def mlflow_server(tmp_path):
    """An MLflow server with a store of the test's own."""
    with running_mlflow_server(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def with_mlflow_server():
    """A context manager that runs an MLflow server on the store in a folder."""
    return running_mlflow_server


TROUBLED = '''
"""A learner that gets into the trouble that its config names, in training."""

import os
import time
from pathlib import Path
from typing import ClassVar, Literal

import torch

from mambacl.learners.closed_form.alpaca import Alpaca
from mambacl.learners.closed_form.configs import AlpacaConfig


class TroubledConfig(AlpacaConfig):
    """ALPaCA with troubles."""

    implementation: ClassVar[str] = "troubled:Troubled"
    name: Literal["troubled"] = "troubled"
    trouble: Literal["none", "nan", "exception", "hungry", "starving", "broken"] = "none"
    """broken: from the first step on; hungry: memory for two episodes at a time; starving: for none."""
    at: int = 0
    """Step from which on it is in trouble."""
    pause: float = 0.0
    """Seconds that it waits before a step."""
    trace: str | None = None
    """File that gets a line a step: its number, the time, and the process."""
    slow: float = 0.0
    """Seconds that reading a batch of episodes takes, but for training."""


class Troubled(Alpaca):
    step = -1

    def before_step(self, step):
        self.step = step
        time.sleep(self.config.pause)
        if self.config.trace:
            with Path(self.config.trace).open("a") as file:
                file.write(f"{step} {time.time()} {os.getpid()}\\n")

    def forward(self, episode, state=None, **options):
        trouble = self.config.trouble if self.step >= self.config.at else "none"
        if self.config.trouble == "broken" and self.step >= 0:
            raise ValueError("the learner has always been broken")
        if len(episode.index) > {"hungry": 2, "starving": 0}.get(trouble, 10**9):
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(episode.index)} episodes")
        if trouble == "exception":
            raise ValueError("the learner is broken")
        if not self.training:
            time.sleep(self.config.slow)
        output = super().forward(episode, state, **options)
        return output if trouble != "nan" else type(output)(output.prediction * float("nan"))
'''


@pytest.fixture(scope="session")
def troubled(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH with an installed package that brings the learner `troubled`."""
    site = tmp_path_factory.mktemp("troubled")
    (site / "troubled.py").write_text(TROUBLED)
    metadata = site / "troubled-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: troubled\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mambacl.learners]\ntroubled = troubled:TroubledConfig\n")
    return site


@pytest.fixture
def with_troubled(troubled) -> dict[str, str]:
    """The environment of processes that know the learner `troubled`."""
    path = [str(troubled), os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
