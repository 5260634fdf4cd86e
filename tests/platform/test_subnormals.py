"""Numbers below 1e-38 are zero wherever learners compute: some processors take ten times as long for each."""

import threading

import numpy as np
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.learners.scan import selective_scan
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.cells import cells_of, compute
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.point import Point
from mambacl.platform.machine import flush_subnormals
from mambacl.platform.tracking.serving import Served
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

TINY = {
    "name": "tiny",
    "task": {"name": "glyphs", "tasks": 2, "shots": 1, "queries": 1, "augment": None},
    "learner": {"name": "prototypes", "width": 8, "encoder": {"name": "mlp"}},
    "train": {"steps": 1, "batch": 1, "evaluate_every": 1, "evaluate_episodes": 2},
}


def vanish_in_a_thread_that(work):
    """Whether subnormal numbers are zero in a fresh thread, before and after what it does."""
    found = []

    def vanish():
        found.append(bool((torch.full((8,), 1e-40) * 1.0 == 0).all()))

    def run():
        torch.set_flush_denormal(False)  # a thread starts like the one that started it
        vanish()
        work()
        vanish()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    meta_train(parse(ExperimentConfig, TINY), folder, Worker(), lambda _: None, lambda *_: False)
    return folder


def test_in_training_in_evaluation_and_in_serving(run, tmp_path):
    experiment = parse(ExperimentConfig, TINY)
    family = built_family(experiment.task)
    [cell] = cells_of(
        Contestant.reference(NearestMeanConfig()), experiment.task, Point.as_trained(family, "meta_test"), 0, 2
    )
    image = np.zeros((1, 1, *family.spec.shape), np.uint8)
    asked = {"support_x": image, "support_y": np.zeros((1, 1), int), "query_x": image}
    served = Served(checkpoint.best(run))
    for work in (
        lambda: meta_train(experiment, tmp_path, Worker(), lambda _: None, lambda *_: False),
        lambda: compute(cell),
        lambda: served.predict(asked),
    ):
        assert vanish_in_a_thread_that(work) == [False, True]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_state_that_fades_is_zero_in_the_end_on_all_threads(threads):
    B, L, E, N = 4, 90, 256, 16
    u, key = torch.zeros(B, L, E), torch.zeros(B, L, N)
    u[:, :5], key[:, :5] = 1e-3, 1.0
    before, ends = torch.get_num_threads(), []

    def scan():
        decay = -torch.ones(E, N)
        ones = torch.ones(B, L, E)
        ends.append(selective_scan(u, ones, decay, key, key, None, torch.zeros(B, E, N), kernel="numba")[1])

    torch.set_num_threads(threads)
    try:
        vanish_in_a_thread_that(lambda: (scan(), flush_subnormals(), scan()))
    finally:
        torch.set_num_threads(before)
    # By their bits: this thread may take them for zero, too.
    kept, flushed = (end.view(torch.int32).abs().max().item() for end in ends)
    assert flushed == 0 < kept < 0x00800000, "below the smallest normal number"
