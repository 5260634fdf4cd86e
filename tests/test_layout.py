"""The namespace package must not hide the standard library, and its parts must not depend on more than they say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(code: str) -> str:
    """What a fresh interpreter in the repository's root prints."""
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def test_no_init_file_shadows_the_standard_platform_module():
    for folder in ("platform", "learners", "tasks"):
        assert not (ROOT / folder / "__init__.py").exists()
        assert not (ROOT / folder / "mambacl" / "__init__.py").exists()


def test_import_platform_gives_the_standard_module_from_the_repository_root():
    import platform

    assert hasattr(platform, "python_version")
    assert "lib" in run("import platform; print(platform.__file__, platform.python_version() and '')")


def test_notebook_api_works_where_ray_and_mlflow_cannot_be_imported():
    code = """
import sys
for name in ("ray", "mlflow", "optuna", "tyro"):
    sys.modules[name] = None  # importing it raises ImportError
import torch
from mambacl import learners, tasks
family  = tasks.build({"name": "glyphs", "tasks": 4, "shots": 2, "queries": 1, "seed": 0})
episode = family.episodes("meta_test", range(0, 64))
learner = learners.build({"name": "mamba", "layers": 3, "width": 16, "state_size": 4}, family.spec)
output  = learner(episode)
state   = learner.init_state(batch_size=64)
state   = learner.observe(state, episode.support_x, episode.support_y)
streamed = learner.predict(state, episode.query_x)
assert torch.allclose(output.prediction, streamed.prediction, rtol=1e-4)
print(tuple(output.prediction.shape), learner.state_floats(examples=100))
"""
    assert run(code) == f"(64, 4, 4) {3 * (32 * 4 + 3 * 32)}"


def test_configs_are_read_without_torch():
    run("""
import sys
sys.modules["torch"] = None
import mambacl.learners.registry, mambacl.tasks.registry, mambacl.platform.config
""")
