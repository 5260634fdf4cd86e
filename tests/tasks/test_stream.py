"""How episodes are assembled: whatever the options, a stream keeps its contract, and each option does what it says."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl import learners, tasks
from mambacl.learners.objective import losses, open_set_auroc, scores, seen_only
from mambacl.learners.selectivity import selectivity_losses
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.tasks.stream_config import StreamConfig

K, S, Q = 4, 4, 2
CLASSES, IMAGES = 120, 12
STREAMS = st.fixed_dictionaries(
    {
        "order": st.sampled_from(["blocked", "shuffled", "revisits"]),
        "visits": st.integers(2, 5),
        "uneven": st.sampled_from([0.0, 0.3, 0.75]),
        "label_noise": st.sampled_from([0.0, 0.4, 1.0]),
        "distractors": st.integers(0, 3),
        "open_set": st.integers(0, 3),
        "query_after": st.sampled_from(["end", "own_task_or_later"]),
    }
)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A family with a stream. The pixels of an image tell its class (red) and its number within that (green)."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    label, number = np.divmod(np.arange(CLASSES * IMAGES), IMAGES)
    pixels = np.zeros((len(label), 4, 4, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = label[:, None, None], number[:, None, None]
    np.savez(path, images=pixels, label=label)
    config = {"name": "images", "path": str(path), "augment": None, "tasks": K, "shots": S, "queries": Q}

    def build(**stream):
        return tasks.build(config | {"stream": stream, "vocabulary": 12})

    return build


def identities(x):
    """Class and number of each image, two lists for one episode."""
    return x[0, :, 0, 0, 0].tolist(), x[0, :, 1, 0, 0].tolist()


def runs(numbers):
    """How often neighbours differ, and one."""
    return 1 + sum(a != b for a, b in itertools.pairwise(numbers))


@settings(max_examples=150, deadline=None)
@given(stream=STREAMS, number=st.integers(0, 2**40))
def test_every_stream_keeps_the_contract(build, stream, number):
    family = build(**stream)
    episode = family.episodes("meta_test", [number])
    streamed, T = K + stream["distractors"], (K + stream["distractors"]) * S
    task, asked = episode.support_task[0].tolist(), episode.query_task[0].tolist()
    classes, images = identities(episode.support_x)
    query_classes, query_images = identities(episode.query_x)
    code_of = {}

    assert len(task) == T
    assert len(asked) == (K + stream["open_set"]) * Q
    assert list(dict.fromkeys(task)) == list(range(streamed)), "numbered by first appearance"
    differ = int(S * stream["uneven"])
    shots = [task.count(k) for k in range(streamed)]
    assert all(max(1, S - differ) <= count <= S + differ for count in shots)
    assert len({*zip(classes, images, strict=True), *zip(query_classes, query_images, strict=True)}) == T + len(
        asked
    ), "no image is used twice"
    for k, c in zip(task, classes, strict=True):
        assert code_of.setdefault(k, c) == c, "a task is a class"
    assert len(set(code_of.values())) == streamed

    known = episode.answerable
    assert known == K * Q
    assert asked[:known] == [k for k in sorted(set(asked[:known])) for _ in range(Q)], "task after task"
    assert [code_of[k] for k in asked[:known]] == query_classes[:known]
    assert asked[known:] == [-1] * (len(asked) - known) == episode.query_y[0, known:].tolist()
    assert not set(query_classes[known:]) & set(classes)
    assert len(set(query_classes)) == K + stream["open_set"]

    right = dict(zip(asked[:known], episode.query_y[0].tolist(), strict=False))
    for k, y in zip(task, episode.support_y[0].tolist(), strict=True):
        if k in right and not stream["label_noise"]:
            assert y == right[k]
        if k in right and stream["label_noise"] == 1:
            assert y != right[k]

    last = [T - 1 - task[::-1].index(k) for k in range(streamed)]
    for k, after in zip(asked, episode.query_after[0].tolist(), strict=True):
        if stream["query_after"] == "end":
            assert after == T - 1
        else:
            assert after in last
            assert k < 0 or after >= last[k]

    if stream["order"] == "blocked":
        assert runs(task) == streamed
    if stream["order"] == "revisits" and stream["uneven"] == 0:
        visits = min(stream["visits"], S)
        assert visits * (streamed - 1) < runs(task) <= visits * streamed


@settings(max_examples=25, deadline=None)
@given(stream=STREAMS, numbers=st.lists(st.integers(0, 2**62), min_size=2, max_size=5))
def test_an_episode_depends_on_its_number_alone(build, stream, numbers):
    family = build(**stream)
    together = family.episodes("meta_train", numbers)
    for row, number in enumerate(numbers):
        alone = family.episodes("meta_train", [number])
        for name, value in vars(alone).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(getattr(together, name)[row], value[0]), name


def test_options_leave_each_others_choices_alone(build):
    """So that results with and without an option are paired: same classes, images, codes and wrong labels."""
    plain = build().episodes("meta_test", range(8))
    shuffled = build(order="shuffled").episodes("meta_test", range(8))
    for a, b in zip(plain.support_x, shuffled.support_x, strict=True):
        assert sorted(a.flatten(1).tolist()) == sorted(b.flatten(1).tolist())
    assert not torch.equal(plain.support_x, shuffled.support_x)
    open_set = build(open_set=2).episodes("meta_test", range(8))
    assert torch.equal(open_set.support_x, plain.support_x)
    assert torch.equal(open_set.query_x[:, : K * Q], plain.query_x)
    mild, strong = (build(label_noise=share).episodes("meta_test", range(200)) for share in (0.2, 0.5))
    clean = build().episodes("meta_test", range(200)).support_y
    wrong = [noisy.support_y != clean for noisy in (mild, strong)]
    assert wrong[0].float().mean() == pytest.approx(0.2, abs=0.02)
    assert wrong[1].float().mean() == pytest.approx(0.5, abs=0.02)
    assert not (wrong[0] & ~wrong[1]).any(), "a larger share holds the smaller one's"


def test_wrong_labels_are_spread_over_the_other_tasks(build):
    episode = build(label_noise=1).episodes("meta_train", range(400))
    clean = build().episodes("meta_train", range(400))
    codes = clean.support_y.view(400, K, S)[:, :, 0]
    place = (episode.support_y.unsqueeze(-1) == codes.unsqueeze(1)).float()
    counts = place.view(400, K, S, K).mean((0, 2))
    expected = (1 - torch.eye(K)) / (K - 1)
    assert torch.allclose(counts, expected, atol=0.05)


def test_uneven_shots_reach_both_ends_of_their_range(build):
    episode = build(uneven=0.75).episodes("meta_train", range(300))
    counts = torch.stack([(episode.support_task == k).sum(1) for k in range(K)])
    assert sorted(set(counts.flatten().tolist())) == [1, 2, 3, 4, 5, 6, 7]
    assert (counts.sum(0) == K * S).all()


def test_queries_in_mid_stream_are_spread_over_the_ends_from_their_own_on(build):
    """Lee et al. (2023): a task drawn evenly from the own one to the last."""
    episode = build(query_after="own_task_or_later").episodes("meta_train", range(2000))
    end = episode.query_after // S
    for k in range(K):
        shares = end[:, Q * k : Q * (k + 1)].flatten().bincount(minlength=K) / (2000 * Q)
        assert torch.allclose(shares, (torch.arange(K) >= k) / (K - k), atol=0.04)
    plain = build().episodes("meta_train", range(4))
    resized = build().varied(stream=StreamConfig(query_after="own_task_or_later")).episodes("meta_train", range(4))
    assert torch.equal(resized.query_after, episode.query_after[:4])
    assert torch.equal(resized.query_x, plain.query_x)


def test_values_too_have_all_kinds_of_streams():
    sine = {"name": "sine", "tasks": 5, "shots": 4, "queries": 2}
    stream = {
        "order": "revisits",
        "uneven": 0.5,
        "distractors": 2,
        "label_noise": 0.3,
        "query_after": "own_task_or_later",
    }
    family = tasks.build(sine | {"stream": stream})
    episode = family.episodes("meta_val", range(6))
    assert episode.support_y.shape == (6, 28, 50)
    plain = tasks.build(sine).episodes("meta_val", range(6))
    exact = (episode.support_y.unsqueeze(2) == episode.support_y.unsqueeze(1)).all(-1).sum(2)
    assert (exact > 1).any(), "wrong labels are those of other examples"
    assert plain.support_y.shape == (6, 20, 50)
    with pytest.raises(ValueError, match=r"^task\.stream\.open_set: needs label codes, the task is regression$"):
        tasks.build(sine | {"stream": {"open_set": 1}})


def test_mistakes_are_one_line(build):
    with pytest.raises(ValueError, match=r"^task\.vocabulary: must be at least the tasks of a stream, 13, got 12$"):
        build(distractors=9)
    with pytest.raises(ValueError, match=r"^task\.tasks: meta_val has 10 classes, an episode needs 22$"):
        build(open_set=20)
    with pytest.raises(
        ValueError, match=r"^task\.shots: .* has 12 images, an episode needs 7 shots \+ 6 queries; too small: "
    ):
        build(uneven=0.75).varied(queries=6).check()


def test_the_digest_tells_streams_apart_and_stays_for_the_default(build):
    digests = [
        build(**stream).spec.digest for stream in ({}, {"order": "blocked"}, {"order": "shuffled"}, {"visits": 3})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_queries_without_an_answer_count_nowhere_and_are_told_apart(build):
    family = build(open_set=2)
    episode, plain = family.episodes("meta_test", range(5)), build().episodes("meta_test", range(5))
    learner = learners.build(
        {"name": "mamba", "layers": 1, "width": 8, "state_size": 4, "encoder": {"name": "mlp"}}, family.spec
    ).eval()
    torch.nn.init.normal_(learner.head.weight)
    answers, answers_plain = learner(episode, layers=(-1,)), learner(plain, layers=(-1,))
    for measure in (losses, scores):
        assert torch.allclose(measure(answers.prediction, episode), measure(answers_plain.prediction, plain), atol=1e-5)
    pull, counts = selectivity_losses(answers.associations[0], episode, SelectivityConfig())
    assert (counts == (episode.query_task >= 0)).all()
    assert (pull[:, K * Q :] == 0).all()
    sure = torch.zeros(5, 6 * Q, 12)
    assert (open_set_auroc(sure, episode) == 0.5).all()
    sure[:, : K * Q, 3] = 5
    assert (open_set_auroc(sure, episode) == 1).all()
    assert (open_set_auroc(-sure, episode) > 0.99).all()
    sure[:, 0, 3] = 0
    assert open_set_auroc(sure, episode).tolist() == pytest.approx([(7 + 0.5) / 8] * 5)


def test_codes_count_as_seen_from_their_first_example_on(build):
    episode = build(query_after="own_task_or_later").episodes("meta_test", range(20))
    seen = torch.isfinite(seen_only(torch.zeros(20, K * Q, 12), episode))
    assert torch.equal(seen.sum(-1), episode.query_after // S + 1)
    assert seen.gather(2, episode.query_y.unsqueeze(-1)).all(), "an answer has always been seen"


@pytest.mark.parametrize(
    "stream",
    [
        {},
        {"order": "shuffled"},
        {"label_noise": 0.2},
        {"open_set": 1, "distractors": 1},
        {"query_after": "own_task_or_later"},
    ],
)
def test_ordered_codes_are_the_tasks_numbers(stream):
    family = tasks.build({"name": "glyphs", "tasks": 4, "shots": 6, "queries": 2, "vocabulary": 9, "stream": stream})
    drawn = family.episodes("meta_train", range(16))
    which = torch.arange(16) % 2 == 0
    ordered = drawn.with_ordered_codes(which)
    assert torch.equal(ordered.support_y[~which], drawn.support_y[~which])
    asked = ordered.query_task >= 0
    assert torch.equal(ordered.query_y[which][asked[which]], ordered.query_task[which][asked[which]])
    assert (ordered.query_y[~asked] == -1).all()
    right = ordered.support_y[which] == ordered.support_task[which]
    assert right.all() if "label_noise" not in stream else 0.6 < right.double().mean() < 0.95
    # Who bore the same label still does.
    for before, after in ((drawn.support_y, ordered.support_y), (drawn.query_y, ordered.query_y)):
        assert torch.equal(before.unsqueeze(1) == before.unsqueeze(2), after.unsqueeze(1) == after.unsqueeze(2))
