"""`mambacl bench gpu`: all of it runs without a GPU at tiny sizes, and what it checks and compares is right."""

import importlib.util
import json
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from mambacl.learners.scan import reference
from mambacl.platform.benchmarks import gpu_episodes, gpu_errors
from mambacl.platform.cli import run
from mambacl.platform.commands import bench


def test_the_file_runs_where_the_platform_could_not(tmp_path):
    """Guards the short list of what it needs, which is all that a borrowed GPU may have, and every line of it on a CPU."""
    file = importlib.util.find_spec("mambacl.platform.benchmarks.gpu").origin
    output = tmp_path / "made" / "gpu.json"
    code = (
        "import runpy, sys\n"
        "for name in 'ray mlflow optuna torchvision numba rich tyro pandas yaml matplotlib'.split():\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['gpu.py', '--tiny', '--output', {str(output)!r}]\n"
        f"runpy.run_path({file!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert (found["benchmark"], found["scope"]) == ("gpu", "tiny")
    rows = {row["what"]: row for row in found["rows"]}
    assert len(done.stdout.splitlines()) == len(rows)
    if importlib.util.find_spec("triton"):
        assert rows["selective scan and read, triton, tokens in float32: backward error"]["median"] < 1e-4
    for name in gpu_episodes.LEARNERS:
        for what in ("training", "inference"):
            assert any(row.startswith(name) and what in row and rows[row]["unit"] == "episodes/s" for row in rows)
    assert rows["mamba, training: times the episodes of attention"]["target"] == "> 2.6 x"
    assert all(row["met"] is None for row in rows.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_one_line_says_so(capsys, monkeypatch):
    monkeypatch.setattr(bench, "measured_apart", bench.measured)
    assert run("bench", ["gpu"]) == 2
    assert capsys.readouterr().err == "mambacl: bench gpu: torch finds no GPU here; --tiny runs all of it on the CPU\n"


def test_a_kernel_with_wrong_gradients_misses_its_target():
    """Guards the checks themselves: a kernel that drops the gradient of the final state, as mamba-ssm's does."""
    wrong = ModuleType("wrong")
    wrong.selective_read = reference.selective_read

    def selective_scan(*tensors):
        y, last = reference.selective_scan(*tensors)
        return y, last.detach()

    wrong.selective_scan = selective_scan

    def met(module):
        def make(seed):
            return gpu_errors.selective_inputs((1, 5, 4, 3), torch.float32, torch.device("cpu"), seed)

        rows = gpu_errors.compared("x", module, reference, make, gpu_errors.selective_outputs, "tiny", 1e-4)
        return [row.met for row in rows]

    assert met(reference) == [True, True]
    assert met(wrong) == [True, False]


def test_a_kernel_that_raises_is_named_and_ends_nothing():
    """Guards the rest of a benchmark: flash-linear-attention refuses some adjoints by an exception in the middle."""
    broken = ModuleType("broken")

    def refused(*_):
        raise RuntimeError("not on this GPU\nsince it is too new")

    row, *rest = gpu_errors.compared("x", broken, reference, lambda seed: [torch.ones(1)], refused, "tiny", 1e-4)
    assert (row.median, row.note, rest) == (None, "RuntimeError: not on this GPU", [])


def test_the_fastest_way_to_run_each_learner_is_compared():
    titles = [("mamba", "mamba"), ("mamba", "mamba, CUDA graph"), ("attention", "attention")]
    rates = np.array([[1.0, 1.0], [6.0, 6.0], [2.0, 2.0]])
    *shares, ratio = gpu_episodes.best_rows(titles, rates, "training", {"mamba": 0.05, "attention": 0.1})
    assert [row.median for row in shares] == pytest.approx([30, 20])
    assert (ratio.median, ratio.target, ratio.met) == (3, "> 2.6 x", True)


def test_fresh_steps_change_the_weights():
    """Guards that training is trained: a step whose gradients went nowhere would be fast."""
    for name in gpu_episodes.LEARNERS:
        learner, episode = gpu_episodes.learner_of(name, "tiny"), gpu_episodes.episode_of(2, "tiny")
        before = {key: value.clone() for key, value in learner.state_dict().items()}
        gpu_episodes.trainer(learner, episode, gpu_episodes.answers)()
        changed = [not torch.equal(value, before[key]) for key, value in learner.state_dict().items()]
        assert np.mean(changed) > 0.9
        exact = learner(episode).prediction
        assert torch.allclose(gpu_episodes.answers(learner, episode), exact, atol=1e-6)
