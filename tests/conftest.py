"""What all tests share."""

import os
import socket
from pathlib import Path

import pytest

# One thread in every process that tests start: the tensors are tiny, and threads of several processes would spin each other
# to death on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
