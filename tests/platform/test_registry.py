"""Registered models: versions, aliases, references, and nothing loaded that is not what it says."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.sweeping.card import model_card
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.registry import find, register, registered
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.registry import build as build_family

TINY = {
    "name": "tiny",
    "task": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "mamba", "layers": 1, "width": 8, "state_size": 4},
    "train": {"steps": 10, "batch": 2, "warmup": 5, "evaluate_every": 10, "evaluate_episodes": 4},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, store, run folder, run id) of a tiny trained learner."""
    root = tmp_path_factory.mktemp("root")
    config = parse(ExperimentConfig, TINY | {"storage": {"root": str(root)}})
    run = root / "run"
    open_record(config, run)
    meta_train(config, run, Worker(), lambda saved: None, lambda step, point: False)
    close_record(run, None)
    store = Store(config.storage)
    return config, store, run, store.deliver(run).run_id


@pytest.fixture(scope="module")
def version(trained):
    config, store, run, run_id = trained
    chosen = checkpoint.best(run)
    return register(store, chosen, run_id, model_card(chosen), {"mambacl.learner": "mamba"})


def test_what_a_server_keeps_is_brought_once_to_where_all_nodes_find_it(trained, mlflow_server, tmp_path):
    _, _, run, _ = trained
    storage = StorageConfig(root=str(tmp_path / "shared"), tracking_uri=mlflow_server.uri)
    copy, store = tmp_path / "run", Store(storage)
    shutil.copytree(run, copy)
    records.update(copy, run_id=None, sent=0, delivered=False)
    run_id = store.deliver(copy).run_id
    version = register(store, checkpoint.best(copy), run_id, "card", {})
    shutil.rmtree(copy)
    for reference in (f"models:/tiny/{version}", f"runs:/{run_id}"):
        found, again = (find(reference, storage).checkpoint for _ in range(2))
        assert found.path == again.path
        assert found.path.parent == tmp_path / "shared" / "downloads"
        assert found.sha256 == checkpoint.best(run).sha256
        assert found.fault() is None
        assert (found.path / "classes.json").read_bytes() == (run / "classes.json").read_bytes()
    assert len(list((tmp_path / "shared" / "downloads").iterdir())) == 2, "no drafts"


def test_a_model_answers_queries_through_mlflow(trained, version, monkeypatch):
    import mlflow

    config, store, run, _ = trained
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    episode = build_family(config.task).episodes("meta_test", range(4))
    data = {name: getattr(episode, name).numpy() for name in ("support_x", "support_y", "query_x")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    for reference in ("models:/tiny@candidate", f"models:/tiny/{version}"):
        logits = mlflow.pyfunc.load_model(reference).predict(data)
        assert logits.shape == (4, 3, 3)
    from mambacl.platform.evaluation.contestant import Contestant

    learner = Contestant.of("x", checkpoint.best(run)).load(build_family(config.task))
    assert np.allclose(logits, learner(episode).prediction.detach().numpy())
    with pytest.raises(ValueError, match="query_x: missing"):
        mlflow.pyfunc.load_model(reference).predict({"support_x": 1, "support_y": 1})


def test_a_checkpoint_is_registered_once(trained, version):
    config, store, run, run_id = trained
    chosen = checkpoint.best(run)
    assert register(store, chosen, run_id, model_card(chosen), {}) == version
    rows = registered(config.storage)
    assert [(row["name"], row["version"], row["aliases"]) for row in rows] == [("tiny", version, "candidate")]


def test_many_set_the_same_tag_and_alias_at_once(trained, version):
    """One of them inserts it, the others find it there."""
    config, store, *_ = trained
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store(config.storage), range(8)))
        for trial in range(10):
            writes = [pool.submit(one.tag_version, "tiny", version, f"tag {trial}", "value") for one in stores]
            writes += [pool.submit(one.set_alias, "tiny", f"alias-{trial}", version) for one in stores]
            for write in writes:
                write.result()
    found = store.client.get_model_version("tiny", str(version))
    assert [found.tags[f"tag {trial}"] for trial in range(10)] == ["value"] * 10
    for trial in range(10):
        assert f"alias-{trial}" in found.aliases
        store.client.delete_registered_model_alias("tiny", f"alias-{trial}")


def test_every_kind_of_reference_finds_the_same_model(trained, version):
    config, _, run, run_id = trained
    references = [
        "models:/tiny@candidate", f"models:/tiny/{version}", f"runs:/{run_id}", str(run), str(checkpoint.best(run).path),
    ]  # fmt: skip
    found = [find(reference, config.storage) for reference in references]
    assert len({reference.checkpoint.sha256 for reference in found}) == 1
    assert all(reference.checkpoint.fault() is None for reference in found)
    assert found[0].version == version
    assert found[0].run_id == run_id


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("models:/tini@candidate", r"no registered model 'tini' \(did you mean 'tiny'\?\); there are: tiny"),
        ("models:/tiny@chmpion", r"does not exist; versions: 1; aliases: @candidate = 1"),
        ("models:/tiny/99", r"does not exist; versions: 1"),
        ("models:/tiny", r"must be models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("runs:/0123", r"has no run '0123'"),
        ("/nowhere", r"'/nowhere' is no checkpoint or run folder"),
    ],
)
def test_unknown_models_are_one_line_that_says_what_there_is(trained, version, reference, line):
    with pytest.raises(ConfigError, match=line) as caught:
        find(reference, trained[0].storage)
    assert "\n" not in str(caught.value)


def test_no_pickle_is_registered_and_a_changed_model_is_refused(trained, version):
    from mambacl.platform.evaluation.contestant import Contestant
    from mambacl.platform.tracking.serving import _load_pyfunc

    config, store, *_ = trained
    model = find(f"models:/tiny/{version}", config.storage).checkpoint
    files = {path.name for path in model.path.rglob("*") if path.is_file()}
    assert files - {"registered_model_meta"} == {
        "MLmodel", "README.md", "classes.json", "config.json", "manifest.json", "model.safetensors", "progress.json",
        "python_env.yaml", "requirements.txt",
    }  # fmt: skip
    weights = model.path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(ConfigError, match=r"refused, model\.safetensors has changed"):
            Contestant.of("x", model)
        with pytest.raises(ValueError, match="refused"):
            _load_pyfunc(str(model.path))
    finally:
        weights.write_bytes(content)


def test_the_manifest_cannot_be_led_outside(trained, version, tmp_path):
    """A path with `..` in a manifest names no file of the model."""
    model = find(f"models:/tiny/{version}", trained[0].storage).checkpoint
    manifest = json.loads((model.path / "manifest.json").read_text())
    copy = tmp_path / "model"
    copy.mkdir()
    (copy / "manifest.json").write_text(json.dumps(manifest | {"../../etc/passwd": "0"}))
    assert "is no file name" in checkpoint.Checkpoint(path=copy).fault()
