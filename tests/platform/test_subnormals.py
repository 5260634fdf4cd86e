"""Numbers below 1e-38 are zero wherever learners compute: some processors take ten times as long for each."""

import dataclasses
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.learners.scan import selective_scan
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.cells import cells_of, compute
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.measures import MEASURES
from mambacl.platform.evaluation.point import Point
from mambacl.platform.machine import subnormals_as_zero
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


def vanish():
    """Whether a subnormal number is zero in this thread."""
    return bool((torch.full((8,), 1e-40) * 1.0 == 0).all())


@pytest.fixture
def seen():
    """What `vanish` said within the test; before and after it says no."""
    found = []
    assert not vanish()
    yield found
    assert not vanish(), "the caller's thread is as it was"


def test_in_training_in_evaluation_and_in_serving(seen, tmp_path, monkeypatch):
    experiment = parse(ExperimentConfig, TINY)
    meta_train(experiment, tmp_path, Worker(), lambda _: seen.append(vanish()), lambda *_: False)
    assert seen == [True]

    family = built_family(experiment.task)
    [cell] = cells_of(
        Contestant.reference(NearestMeanConfig()), experiment.task, Point.as_trained(family, "meta_test"), 0, 2
    )
    spy = dataclasses.replace(MEASURES["scores"], compute=lambda *_: pd.DataFrame({"zero": [vanish()]}))
    monkeypatch.setitem(MEASURES, "scores", spy)
    assert compute(cell)["zero"].all()

    served = Served(checkpoint.best(tmp_path))
    predict = served.learner.predict
    monkeypatch.setattr(served.learner, "predict", lambda *a: (seen.append(vanish()), predict(*a))[1])
    image = np.zeros((1, 1, *family.spec.shape), np.uint8)
    served.predict({"support_x": image, "support_y": np.zeros((1, 1), int), "query_x": image})
    assert seen == [True, True]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_state_that_fades_is_zero_in_the_end_on_all_threads(threads):
    B, L, E, N = 4, 90, 256, 16
    u, key = torch.zeros(B, L, E), torch.zeros(B, L, N)
    u[:, :5], key[:, :5] = 1e-3, 1.0
    before, ends = torch.get_num_threads(), []

    def scan():
        decay, ones = -torch.ones(E, N), torch.ones(B, L, E)
        ends.append(selective_scan(u, ones, decay, key, key, None, torch.zeros(B, E, N), kernel="numba")[1])

    def run():
        scan()
        with subnormals_as_zero():
            scan()
        scan()

    torch.set_num_threads(threads)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    kept, flushed, again = (end.view(torch.int32).abs().max().item() for end in ends)
    assert flushed == 0 < kept == again < 0x00800000, "by their bits: below the smallest normal number"
