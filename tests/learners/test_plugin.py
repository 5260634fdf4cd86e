"""A learner of another package: the README's example, installed with its entry point, trains and answers."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
PYPROJECT = """
[project]
name = "my-package"
version = "1.0"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["my_package"]
"""


def block(language, containing):
    return next(b for b in re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S) if containing in b)


def test_a_learner_of_another_package_joins(tmp_path):
    package, site = tmp_path / "source", tmp_path / "site"
    (package / "my_package").mkdir(parents=True)
    (package / "my_package" / "__init__.py").touch()
    (package / "my_package" / "cosine.py").write_text(block("python", "CosineAttentionConfig"))
    (package / "pyproject.toml").write_text(PYPROJECT + block("toml", "entry-points"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        site,
        package,
    ]
    subprocess.run(install, check=True, timeout=120)
    code = """
from mambacl import learners, tasks
family = tasks.build({"name": "sine", "tasks": 3, "shots": 2, "queries": 1})
learner = learners.build({"name": "cosine_attention", "width": 8, "heads": 2, "state_size": 4}, family.spec)
learner(family.episodes("meta_train", range(2))).prediction.square().sum().backward()
"""
    environment = os.environ | {"PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
    listed = subprocess.run(
        [sys.executable, "-m", "mambacl.platform.cli", "list", "learners"],
        check=True, timeout=120, env=environment, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "Linear attention with rectified cosine features." in listed


def test_a_package_that_cannot_be_loaded_is_left_out_with_a_warning(tmp_path):
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mambacl.learners]\nbroken = nowhere.at_all:Config\n")
    code = "from mambacl.learners.registry import CONFIGS; assert 'mamba' in CONFIGS"
    child = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert "learner nowhere.at_all:Config is left out: No module named 'nowhere'" in child.stderr
