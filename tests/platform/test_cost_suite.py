"""The cost suite: what it counts is right, what it leaves out it says, and no cell is measured twice on one machine."""

import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import KnnConfig
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.cost import bytes_of, peak_bytes
from mambacl.platform.evaluation.cells import cells_of, compute
from mambacl.platform.evaluation.command import Asked, evaluate
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.measures import cost
from mambacl.platform.evaluation.suites.cost import CostSuite
from mambacl.platform.evaluation.suites.registry import find_suite
from mambacl.platform.session import session
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse

LENGTHS = (10, 30, 90)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def briefly():
    """Times are not looked at here, so they are taken in haste."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "SECONDS", 0.01)
        patch.setattr(cost, "FEWEST", 1)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Run folders of tiny models, by learner."""
    folders = {}
    for name in ("mamba", "attention"):
        content = {
            "name": "tiny",
            "task": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 2, "vocabulary": 6},
            "learner": {"name": name, "width": 16, "layers": 1, "encoder": {"name": "mlp"}},
            "train": {"steps": 1, "batch": 2, "evaluate_every": 1, "evaluate_episodes": 2},
        }
        folders[name] = tmp_path_factory.mktemp(name)
        config = parse(ExperimentConfig, content)
        meta_train(config, folders[name], Worker(), lambda saved: None, lambda step, point: False)
    return folders


def costs(contestant, task, suite):
    """Rows of a contestant."""
    point = suite.points(built_family(task), "meta_test")[0]
    (cell,) = cells_of(contestant, task, point, 0, 16, suite.measure, suite.settings)
    return compute(cell.model_copy(update={"machine": cost.machine()}))


@pytest.fixture(scope="module")
def rows(models):
    """Rows by learner, after scores were asked in the same process, whose tensors know no gradients."""
    task = checkpoint.best(models["mamba"]).config.task
    found = {name: Contestant.of(name, checkpoint.best(folder)) for name, folder in models.items()}
    found["knn"] = Contestant.reference(KnnConfig())
    suite = CostSuite(examples=LENGTHS)
    for contestant in found.values():
        compute(cells_of(contestant, task, suite.points(built_family(task), "meta_test")[0], 0, 2)[0])
    return {name: costs(contestant, task, suite) for name, contestant in found.items()}


def test_the_state_of_mamba_stays_and_that_of_attention_grows_with_the_stream(rows):
    assert rows["mamba"]["state_bytes"].nunique() == 1
    for name in ("attention", "knn"):
        held, floats = rows[name]["state_bytes"], rows[name]["state_floats"]
        assert (held >= 4 * floats).all()
        assert (held <= 3 * 4 * floats).all(), "a cache has room for twice of what it holds"
        assert held[2] / held[1] == pytest.approx(3, rel=0.1)
    assert (rows["mamba"]["state_bytes"] >= 4 * rows["mamba"]["state_floats"]).all()


def test_rows_are_complete(rows):
    for name, mine in rows.items():
        assert list(mine["examples"]) == list(LENGTHS)
        assert (mine["not_run"] == "").all()
        assert (mine["device"] == cost.machine()).all()
        assert (mine["peak_bytes"] > mine["state_bytes"]).all()
        rates = ["inference_episodes_per_second"] + ["training_episodes_per_second"] * (name != "knn")
        for column in [*rates, "ms_per_example", "ms_per_query"]:
            low, middle, high = (mine[column + end] for end in ("_low", "", "_high"))
            assert ((low > 0) & (low <= middle) & (middle <= high)).all()
    trained = rows["attention"]
    assert (trained["training_bytes"] > 4 * 4 * trained["parameters"]).all(), (
        "weights, gradients, two moments, and more"
    )
    assert "training_bytes" not in rows["knn"]


@pytest.mark.parametrize(
    ("limit", "said"), [({"seconds": 1e-9}, "reading 10 examples takes at least"), ({}, "may need")]
)
def test_what_is_left_out_is_said(models, monkeypatch, limit, said):
    monkeypatch.setattr(cost, "memory", lambda: 2**16)
    task = checkpoint.best(models["mamba"]).config.task
    suite = CostSuite(examples=(10, 10_000), **limit)
    found = costs(Contestant.reference(KnnConfig()), task, suite)
    assert list(found["examples"]) == [10, 10_000]
    assert said in found["not_run"].iloc[1]
    assert found["not_run"].iloc[0] == (found["not_run"].iloc[1] if limit else "")
    assert found.get("state_bytes", pd.Series([float("nan")] * 2)).isna().iloc[1]


def test_a_query_that_would_take_too_long_is_not_asked():
    last = {"examples": 10, "peak_bytes": 1, "ms_per_query": 1.0}
    assert cost._too_much(last, 1000, seconds=1) == ""
    assert "asking after 100,000 examples may take" in cost._too_much(last, 100_000, seconds=1)


def test_a_cell_is_measured_once_on_a_machine(models, tmp_path):
    suite = find_suite("{name: cost, examples: [10, 30], seconds: 5}")
    storage = StorageConfig(root=str(tmp_path))
    asked = Asked(references=[{"name": "knn"}])
    with session(None):
        first = evaluate([str(models["mamba"])], suite, storage, asked)
        cells = list((tmp_path / "evaluations" / "cells").rglob("*.parquet"))
        written = {cell: cell.stat().st_mtime_ns for cell in cells}
        second = evaluate([str(models["mamba"])], suite, storage, asked)
    assert len(written) == 2, "one a contestant"
    assert {cell: cell.stat().st_mtime_ns for cell in tmp_path.rglob("cells/*/*.parquet")} == written
    assert first == second
    folder = next(tmp_path.glob("evaluations/*/cost"))
    table, along = (pd.read_csv(folder / f"{name}.csv") for name in ("cost", "streaming"))
    assert list(table["contestant"]) == [first["label"], "knn"]
    assert list(along["examples"]) == [10, 30, 10, 30]
    assert ", 1 thread, torch" in table["device"].iloc[0]
    assert {"streaming.png", "episodes_per_second.png"} <= {file.name for file in folder.iterdir()}


def test_another_machine_is_another_cell(models, monkeypatch):
    task = checkpoint.best(models["mamba"]).config.task
    suite = CostSuite(examples=LENGTHS)
    contestant, point = Contestant.reference(KnnConfig()), suite.points(built_family(task), "meta_test")[0]

    def name(**changes):
        settings = suite.settings | changes
        (cell,) = cells_of(contestant, task, point, 0, 16, suite.measure, settings)
        return cell.model_copy(update={"machine": cost.machine()}).name

    names = {name(), name(seconds=1)}
    monkeypatch.setattr(cost, "device_name", lambda: "another processor")
    assert len(names | {name()}) == 3
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert len(names | {name()}) == 3
    torch.set_num_threads(threads)


def test_lengths_and_seconds_are_checked():
    for wrong in ("examples: []", "examples: [0]", "seconds: 0"):
        with pytest.raises(ConfigError, match=f"suite.*{wrong.split(':')[0]}"):
            find_suite(f"{{name: cost, {wrong}}}")


def test_memory_is_counted_at_its_peak_and_a_shared_storage_once():
    before = torch.zeros(1000)

    def run():
        passing = torch.ones(3000)  # given back before the next is made
        del passing
        kept = torch.ones(1000) + before
        return kept.view(10, 100)

    assert peak_bytes(run, CPU) == 12_000
    assert bytes_of({"a": [before, before[:10]], "b": torch.zeros(5)}) == 4020
