"""A wrong config gives one line that names the field and what is allowed."""

import pytest

from mambacl import tasks
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.registry import TaskConfig


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"name": "glyhps"},
            "task.name: unknown 'glyhps' (did you mean 'glyphs'?); allowed: images, dataset, glyphs, sine, recall",
        ),
        ({}, "task.name: missing"),
        ({"name": "images"}, "task.path: missing"),
        ({"name": "glyphs", "taks": 3}, "task.taks: unknown field (did you mean 'tasks'?); allowed: "),
        ({"name": "glyphs", "tasks": 0}, "task.tasks: must be greater than or equal to 1, got 0"),
        (
            {"name": "glyphs", "augment": {"degrs": 3}},
            "task.augment.degrs: unknown field (did you mean 'degrees'?); allowed: ",
        ),
        ({"name": "glyphs", "tasks": 5, "vocabulary": 3}, "task.vocabulary: must be at least tasks = 5, got 3"),
        (
            {"name": "glyphs", "shots": 12},
            "task.shots: the smallest class of meta_train has 12 images, an episode needs 12 shots + 1 queries",
        ),
        (
            {"name": "glyphs", "tasks": 400, "augment": None},
            "task.tasks: meta_",
        ),
        ({"name": "images", "path": "/nowhere.npz"}, "task.path: no file or folder at /nowhere.npz"),
    ],
)
def test_mistakes_are_one_line(config, line):
    with pytest.raises(ValueError, match=r"\w") as caught:
        tasks.build(config)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_every_mistake_is_named():
    with pytest.raises(ValueError, match=r"\w") as caught:
        tasks.build({"name": "sine", "tasks": -1, "shoots": 2})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["task.tasks", "task.shoots"]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"name": "images", "path": "HERE"}, "path"),
        ({"name": "dataset", "dataset": "omniglot", "root": "HERE"}, "root"),
        ({"name": "glyphs"}, None),
        ({"name": "sine"}, None),
        ({"name": "recall"}, None),
    ],
)
def test_every_family_names_the_field_of_where_its_data_are(config, field):
    """So that other code can point a stored experiment at a copy elsewhere."""
    task = parse(TaskConfig, config)
    assert task.location == field
    assert field is None or getattr(task, field) == "HERE"
    assert "location" not in task.model_dump()
    with pytest.raises(ConfigError, match="unknown field"):
        parse(TaskConfig, config | {"location": "path"})
