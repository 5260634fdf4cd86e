"""`cluster/rehearsal` does what it says: an edited sweep survives a node, is seen in MLflow, and nothing is left running."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TINY = (
    "--task.tasks 3 --task.vocabulary 3 --task.queries 1 --train.batch 2 --train.steps 60 --train.evaluate_every 20 "
    "--train.evaluate_episodes 4 --train.curriculum [] --learner.width 16 --learner.layers 1 --sweep.grace 60"
)


@pytest.fixture
def folder():
    """Its name is short, since Ray's sockets lie in it."""
    made = Path(tempfile.mkdtemp(prefix="mambacl-"))
    made.chmod(0o711)  # PostgreSQL's user passes through
    yield made / "r"
    shutil.rmtree(made)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_whole_of_it(folder):
    for program in ("pg_config", "chromium"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} (Debian: apt-get install postgresql libpq-dev chromium)")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder.with_name("log")
    with log.open("w") as file:
        rehearsal = subprocess.Popen(
            [ROOT / "cluster" / "rehearsal", folder, *TINY.split()],
            env=os.environ | {"PATH": path}, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        assert rehearsal.wait() == 0, log.read_text()
    finally:
        rehearsal.terminate()  # it ends what it started
        rehearsal.wait()
    runs = [json.loads(file.read_text()) for file in (folder / "runs" / "rehearsal" / "trials").glob("*/run.json")]
    assert len(runs) == 4
    assert {(run["status"], run["tags"]["mlflow.source.name"]) for run in runs} == {("FINISHED", "mambacl, edited")}
    assert "Comparing 5 Runs from 1 Experiment" in (folder / "compared.txt").read_text(), "and the one beside them"
    assert Image.open(folder / "compared.png").width == 1600
    assert json.loads((folder / "cluster" / "state.json").read_text())["processes"] == {}
