"""Sides of a comparison: a process for each, which takes turns with the others."""

import os

import pytest

from mambacl.platform.benchmarks.sides import Sides


def test_each_side_has_a_process_of_its_own(written):
    pid = written(
        """
        import os
        import torch
        from mambacl.platform.benchmarks.sides import Side

        def pid():
            return Side(lambda: None, [torch.tensor([os.getpid(), torch.get_num_threads()])])
        """
    ).pid
    with Sides(threads=3) as sides:
        found = sides.make({"a": pid, "b": pid})
        (a, threads), (b, _) = (answers[0].tolist() for answers in found.values())
        assert len({a, b, os.getpid()}) == 3
        assert threads == 3
        assert sides.make({"a": pid})["a"][0][0] == a
        assert {name: len(times) for name, times in sides.measure(["a", "b"], "tiny", 0).items()} == {"a": 3, "b": 3}
    with pytest.raises(ProcessLookupError):
        os.kill(a, 0)


def test_what_goes_wrong_in_a_side_is_said(written):
    failing = written(
        """
        def failing():
            raise ValueError("no such side")
        """
    ).failing
    with Sides(threads=1) as sides, pytest.raises(ValueError, match="no such side"):
        sides.make({"a": failing})
