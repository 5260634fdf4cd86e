"""Recall: orthogonal keys, equal for all shots and queries of a task, and label codes of which the last one counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl import tasks

CONFIG = {"name": "recall", "tasks": 6, "shots": 2, "queries": 2, "dimensions": 12}


def keys_of(x):
    """The number of each key (B, N): equal for equal rows."""
    return torch.stack([torch.unique(rows.mul(1e4).round(), dim=0, return_inverse=True)[1] for rows in x])


def test_keys_are_orthogonal_and_repeat_within_their_task():
    episode = tasks.build(CONFIG).episodes("meta_train", range(5))
    gram = episode.support_x @ episode.support_x.transpose(1, 2)
    same = episode.support_task.unsqueeze(1) == episode.support_task.unsqueeze(2)
    assert torch.allclose(gram, 12.0 * same, atol=1e-4)
    across = episode.query_x @ episode.support_x.transpose(1, 2)
    assert torch.allclose(
        across, 12.0 * (episode.query_task.unsqueeze(2) == episode.support_task.unsqueeze(1)), atol=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(0, 2**40),
    reassign=st.sampled_from([0.0, 0.5, 1.0]),
    order=st.sampled_from(["blocked", "shuffled", "revisits"]),
    distractors=st.integers(0, 2),
    open_set=st.integers(0, 2),
    uneven=st.sampled_from([0.0, 0.5]),
)
def test_the_last_label_of_a_key_is_the_answer(number, reassign, order, distractors, open_set, uneven):
    stream = {"order": order, "distractors": distractors, "open_set": open_set, "uneven": uneven}
    family = tasks.build(CONFIG | {"reassign": reassign, "stream": stream})
    episode = family.episodes("meta_val", [number])
    reassigned = round(6 * reassign)
    assert episode.support_x.shape == (1, (6 + distractors + reassigned) * 2, 12)
    key = keys_of(torch.cat([episode.support_x, episode.query_x], dim=1))[0].tolist()
    support, queries = key[: episode.support_x.shape[1]], key[episode.support_x.shape[1] :]
    labels = episode.support_y[0].tolist()
    shown = {k: [y for other, y in zip(support, labels, strict=True) if other == k] for k in set(support)}
    for k, y in zip(queries[:12], episode.query_y[0].tolist(), strict=False):
        assert shown[k][-1] == y
    assert sum(len(set(shown[k])) == 2 for k in set(queries[:12])) == reassigned
    for k in set(support):
        changes = sum(a != b for a, b in zip(shown[k], shown[k][1:], strict=False))
        assert changes == len(set(shown[k])) - 1, "no label of before comes back"
    assert not set(queries[12:]) & set(support)
    assert len(queries) == 12 + 2 * open_set


def test_sizes_that_do_not_fit_are_one_line():
    with pytest.raises(ValueError, match=r"^task: dimensions: must be at least the 14 keys of an episode, got 12$"):
        tasks.build(CONFIG | {"tasks": 12, "stream": {"distractors": 2}})
    with pytest.raises(ValueError, match=r"^task\.vocabulary: must be at least .*, got 8$"):
        tasks.build(CONFIG | {"vocabulary": 8, "reassign": 0.5})
    family = tasks.build(CONFIG | {"vocabulary": 8, "reassign": 0.25})
    assert family.limits("meta_test")["tasks"] == 6
    assert tasks.build(CONFIG | {"vocabulary": 90}).limits("meta_test")["tasks"] == 12
