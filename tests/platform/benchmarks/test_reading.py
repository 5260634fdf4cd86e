"""What `bench reading` compares: answers from one state and from copies of the stream, which are the same."""

import pytest

from mambacl.platform.benchmarks import reading


@pytest.mark.parametrize("factor", [1.01, "torch.nan"])
def test_copies_that_answer_otherwise_are_not_timed(monkeypatch, written, factor):
    text = f"""
        import torch

        def wrong(learner, episode):
            return {factor} * learner(episode).prediction
        """
    monkeypatch.setattr(reading, "replicated", written(text).wrong)
    assert [row.median for row in reading.rows("tiny")] == [None, None]
