"""What the README says is executed: every command, at a tiny size, and every snippet."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

README = (Path(__file__).parent.parent / "README.md").read_text()
TINY = [
    "--task.tasks=3", "--task.vocabulary=5", "--task.queries=1", "--train.steps=20", "--train.evaluate_every=10",
    "--train.evaluate_episodes=8", "--train.batch=4", "--train.curriculum=[]",
]  # fmt: skip
SMALLER = {
    "train": [*TINY],
    "show": [*TINY],
    "sweep": [*TINY, "--sweep.trials", "2"],
    "lineup": [*TINY],
    "study": ["--dry_run"],
    "evaluate": ["--episodes", "8"],
    "bench": ["--tiny"],
}
STUDY = {
    "experiments": {"prototypes": {"base": "quickstart", "learner.name": "prototypes"}},
    "fields": {
        "task.tasks": 3,
        "train.steps": 10,
        "train.evaluate_every": 10,
        "train.evaluate_episodes": 8,
        "resources.trainer": "inline",
    },
    "episodes": 8,
}
"""What is run before its report, in place of the one that the README names and that takes an hour."""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.startswith("mambacl")
]


OMNIGLOT = "omniglot_background_32.npz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, folder, request):
    """In order, in one folder: later commands use what earlier ones made."""
    if (OMNIGLOT in line or "--data" in line) and not (folder / OMNIGLOT).exists():
        lay_out(request.getfixturevalue("data"), folder)
    _, command, *arguments = shlex.split(line)
    if command == "report":
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY | {"name": arguments[0]}))
        mambacl(folder, "study", "study.yaml")
    mambacl(folder, command, *arguments, *SMALLER.get(command, []))


def lay_out(data, folder):
    """The data that commands name, in the folder that they run in; of photographs a few of each class."""
    for file in data.glob("*.npz"):
        (folder / file.name).symlink_to(file)
    for group in (data / "grocery").iterdir():
        (folder / "grocery" / group.name).mkdir(parents=True)
        for photograph in sorted(group.iterdir())[:8]:
            (folder / "grocery" / group.name / photograph.name).symlink_to(photograph)


def mambacl(folder, *arguments):
    child = subprocess.run(
        [sys.executable, "-m", "mambacl.platform.cli", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=500, env=os.environ | {"MAMBACL_TRACEBACK": "1"},
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block):
    subprocess.run([sys.executable, "-c", block], check=True, timeout=120)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_is_a_valid_experiment(block):
    from mambacl.platform.config import ExperimentConfig
    from mambacl.tasks.config import parse

    assert parse(ExperimentConfig, yaml.safe_load(block)).search


def test_the_table_of_learners_is_what_the_command_says():
    from mambacl.platform.commands.list import learners

    for row in learners():
        line = f"| `{row['name']}` | {row['what it is']} | {row['parameters']:,} | {row['state floats']:,} | {row['source']} |"
        assert line in README, line


def test_the_table_of_suites_is_what_the_command_says():
    from mambacl.platform.commands.list import suites

    for row in suites():
        line = f"| `{row['name']}` | {row['what it is']} |"
        assert line in README, line
