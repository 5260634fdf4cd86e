"""A checkpoint is whole or does not count, and nothing that is whole is lost."""

import json
import logging

import pytest
import torch

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.checkpoint import Progress
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Spec

SPEC = Spec(input="vector", shape=(2,), output="classification", size=3, digest="d")


def save(run, step, score=0.5, best_step=None):
    config = ExperimentConfig(name="x")
    progress = Progress(
        step=step, score=score, best_score=score, best_step=step if best_step is None else best_step, stale=0,
        seconds=1.0, stopped=None, state_floats=7, spec=SPEC,
    )  # fmt: skip
    weights = {"w": torch.full((3,), float(step))}
    return checkpoint.save(run, config, progress, weights, {"w/exp_avg": torch.zeros(3)}, [{"step": step, "a": 1.0}])


def test_what_is_saved_is_read(tmp_path):
    saved = save(tmp_path, 10)
    found = checkpoint.newest(tmp_path)
    assert found == saved
    assert found.fault() is None
    assert found.progress.step == 10
    assert found.config == ExperimentConfig(name="x")
    assert torch.equal(found.weights["w"], torch.full((3,), 10.0))
    assert found.curve == [{"step": 10, "a": 1.0}]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "progress.json", "curve.jsonl"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(tmp_path, caplog, file, damage):
    save(tmp_path, 10)
    path = save(tmp_path, 20).path / file
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        found = checkpoint.newest(tmp_path)
    assert found.progress.step == 10
    assert "step-00000020" in caplog.text
    assert file in caplog.text
    again = save(tmp_path, 20)  # the run goes on from 10 and comes by 20 again
    assert checkpoint.newest(tmp_path) == again
    assert again.fault() is None


def test_a_kill_before_the_rename_leaves_the_older_checkpoint(tmp_path):
    save(tmp_path, 10)
    draft = tmp_path / "checkpoints" / ".draft-00000020-1"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path).progress.step == 10
    save(tmp_path, 20)
    assert not draft.exists()


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step in range(10, 60, 10):
        save(tmp_path, step, best_step=20)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000020", "step-00000040", "step-00000050"]
    assert checkpoint.best(tmp_path).path.name == "step-00000020"


def test_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(ConfigError, match="holds no complete checkpoint"):
        checkpoint.best(tmp_path)


def test_no_pickle_is_in_a_checkpoint(tmp_path):
    saved = save(tmp_path, 10)
    assert sorted(path.name for path in saved.path.iterdir()) == [
        "config.json", "curve.jsonl", "manifest.json", "model.safetensors", "optimizer.safetensors", "progress.json",
    ]  # fmt: skip
    assert set(json.loads((saved.path / "manifest.json").read_text())) == {p.name for p in saved.path.iterdir()} - {
        "manifest.json"
    }
