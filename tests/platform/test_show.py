"""The dry run says what the splits hold, in words and in JSON."""

import json

from mambacl.platform.cli import run
from mambacl.tasks.randomness import SPLITS
from mambacl.tasks.registry import build


def test_the_classes_of_each_split_are_counted(capsys):
    family = build({"name": "glyphs", "tasks": 10, "shots": 5, "queries": 2, "augment": None, "train_classes": 40})
    arguments = ["quickstart", "--task.train_classes", "40"]
    assert run("show", [*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["classes"]
    assert told == {
        split: {"count": len(family.classes[split]), "digest": family.pools[split].digest} for split in SPLITS
    }
    assert told["meta_train"]["count"] == 40
    assert run("show", arguments) == 0
    assert f"40 meta_train ({told['meta_train']['digest'][:12]})" in " ".join(capsys.readouterr().out.split())


def test_a_generated_family_has_none(capsys):
    assert run("show", ["sine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["classes"] == {}
