"""What tests of learners share."""

import os
import subprocess
import sys

import pytest
import torch


@pytest.fixture
def assert_same_from_cache(tmp_path):
    """A function that runs code twice with one fresh cache of numba: it prints the same where it compiles and where it loads."""

    def check(code: str) -> None:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        compiled, loaded = (
            subprocess.run(
                [sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=500
            ).stdout
            for _ in range(2)
        )
        assert list(tmp_path.rglob("*.nbc"))
        assert compiled == loaded

    return check


@pytest.fixture
def threads():
    """Sets torch's threads for the length of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
