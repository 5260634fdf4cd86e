"""What all tests share."""

import os
import socket
from pathlib import Path

import pytest
import torch

# One thread in every process that tests start: the tensors are tiny, and threads of several processes would spin each other
# to death on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a GPU, Triton's kernels run in its interpreter, which asks for this when something first imports it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tests keep their own tracking stores, whatever the user has.
os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets that MAMBACL_DATA names."""
    folder = os.environ.get("MAMBACL_DATA")
    if not folder:
        pytest.skip("MAMBACL_DATA names no folder with real data sets")
    return Path(folder)


@pytest.fixture
def unused_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
    trouble: Literal["none", "nan", "exception", "hungry", "starving"] = "none"
    """hungry: memory for two episodes at a time; starving: for none."""
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
