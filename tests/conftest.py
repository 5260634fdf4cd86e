"""What all tests share."""

import os
from pathlib import Path

import pytest

# Two threads at most in every process that tests start: more spin each other to death on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets that MAMBACL_DATA names."""
    folder = os.environ.get("MAMBACL_DATA")
    if not folder:
        pytest.skip("MAMBACL_DATA names no folder with real data sets")
    return Path(folder)
