"""What tests of pages share: a browser, and a small study that was really run."""

import shutil
import subprocess

import pytest
from filelock import FileLock

WEIGHED = {
    "name": "weighed",
    "question": "Does <b>pulling</b> associations help & whom?",
    "experiments": {"mamba": {"base": "quickstart"}, "attention": {"base": "quickstart", "learner.name": "attention"}},
    "families": {"letters": {}},
    "fields": {
        "task.tasks": 3, "task.shots": 2, "train.steps": 20, "train.evaluate_every": 10, "train.evaluate_episodes": 16,
        "resources.trainer": "inline", "train.warmup": 2, "learner.layers": 1, "learner.width": 16, "learner.encoder": {"name": "mlp"},
    },
    "vary": {"selectivity.weight": [0, 2]},
    "seeds": [0, 1],
    # One evaluation a trial: none is stopped early.
    "search": {
        "trials": 2, "steps": 10,
        "fields": {"train.learning_rate": {"log": [1e-3, 1e-2]}, "train.weight_decay": {"log": [1e-3, 1e-1]}},
    },
    "suites": ["standard", "robustness"],
    "episodes": 64,
}  # fmt: skip


@pytest.fixture(scope="session")
def weighed(tmp_path_factory, worker_id):
    """Folder of a study of two learners, each with and without regularisation, with two seeds, searched first. It is run once
    for all of pytest's workers."""
    from mambacl.platform.config import StorageConfig
    from mambacl.platform.studying.command import study
    from mambacl.platform.studying.config import StudyConfig
    from mambacl.tasks.config import parse

    own = tmp_path_factory.getbasetemp()
    root = (own if worker_id == "master" else own.parent) / "weighed"
    folder = root / "studies" / "weighed"
    with FileLock(f"{root}.lock"):
        if not (folder / "report.html").exists():
            study(parse(StudyConfig, WEIGHED), {}, StorageConfig(root=str(root)))
    return folder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A function that opens a page in Chromium and returns the HTML that its scripts leave: url, and milliseconds of the
    page's own time that they get."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium (Debian: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("chromium")

    def html(url: str, milliseconds: int = 2000) -> str:
        child = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
             f"--user-data-dir={profile}", "--window-size=1600,1400", f"--virtual-time-budget={milliseconds}", url],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert child.returncode == 0, child.stderr
        return child.stdout

    return html
