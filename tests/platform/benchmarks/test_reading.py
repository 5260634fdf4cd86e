"""What `bench reading` compares: answers from one state and from copies of the stream, which are the same."""

import pytest
import torch

from mambacl.platform.benchmarks import reading


@pytest.mark.parametrize("factor", [1.01, torch.nan])
def test_copies_that_answer_otherwise_are_not_timed(monkeypatch, factor):
    monkeypatch.setattr(reading, "replicated", lambda learner, episode: factor * learner(episode).prediction)
    assert [row.median for row in reading.rows("tiny")] == [None, None]
