"""Episodes of every family: shapes and ranges of the contract, determinism, disjoint splits."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl import tasks
from mambacl.tasks.randomness import SPLITS

CONFIGS = [
    {"name": "glyphs", "tasks": 5, "shots": 3, "queries": 2, "vocabulary": 9},
    {"name": "sine", "tasks": 5, "shots": 3, "queries": 2},
    {"name": "recall", "tasks": 5, "shots": 3, "queries": 2, "vocabulary": 9, "dimensions": 16},
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config["name"])
def family(request):
    return tasks.build(request.param)


def tensors(episode):
    return {name: value for name, value in vars(episode).items() if isinstance(value, torch.Tensor)}


def test_shapes_types_and_ranges_are_those_of_the_contract(family):
    episode = family.episodes("meta_train", range(4))
    B, T, M = 4, 15, 10
    assert episode.support_x.shape == (B, T, *family.spec.shape)
    assert episode.query_x.shape == (B, M, *family.spec.shape)
    assert episode.support_x.dtype == (torch.uint8 if family.spec.input == "image" else torch.float32)
    if family.spec.output == "classification":
        assert episode.support_y.shape == (B, T)
        assert episode.support_y.dtype == torch.int64
        assert 0 <= int(episode.support_y.min()) <= int(episode.support_y.max()) < family.spec.size
    else:
        assert episode.support_y.shape == (B, T, family.spec.size)
    assert episode.support_task.tolist() == [[k for k in range(5) for _ in range(3)]] * B
    assert episode.query_task.tolist() == [[k for k in range(5) for _ in range(2)]] * B
    assert (episode.query_after == T - 1).all()
    assert episode.index.tolist() == [0, 1, 2, 3]


@settings(max_examples=20, deadline=None)
@given(numbers=st.lists(st.integers(0, 2**62), min_size=1, max_size=6), split=st.sampled_from(SPLITS))
def test_an_episode_depends_on_its_number_alone(family, numbers, split):
    """In any batch and order an episode is the same: what workers and resumed runs see does not depend on them."""
    together = family.episodes(split, numbers)
    for row, number in enumerate(numbers):
        alone = family.episodes(split, [number])
        for name, value in tensors(together).items():
            assert torch.equal(value[row], tensors(alone)[name][0]), name


def test_splits_and_seeds_and_numbers_differ(family):
    other_seed = tasks.build(family.config.model_dump() | {"seed": 1})
    variants = [family.episodes(split, [0]) for split in SPLITS]
    variants += [family.episodes("meta_train", [1]), other_seed.episodes("meta_train", [0])]
    assert len({variant.support_x.numpy().tobytes() for variant in variants}) == len(variants)
    assert other_seed.spec.digest != family.spec.digest


def test_a_resized_family_starts_with_the_same_tasks(family):
    """Curves over the number of tasks are paired: a longer episode begins with the shorter one's classes."""
    if family.spec.output != "classification":
        pytest.skip("sine tasks are drawn for a whole episode")
    small, large = (
        family.varied(tasks=3).episodes("meta_test", [7]),
        family.varied(tasks=5).episodes("meta_test", [7]),
    )
    assert torch.equal(small.support_y, large.support_y[:, : 3 * 3])
    assert family.varied(tasks=3).spec == family.spec


def test_codes_of_classes_are_distinct_and_consistent(family):
    if family.spec.output != "classification":
        pytest.skip("needs label codes")
    episode = family.episodes("meta_val", range(32))
    for b in range(32):
        codes = episode.support_y[b].view(5, 3)
        assert (codes == codes[:, :1]).all()
        assert len(set(codes[:, 0].tolist())) == 5
        assert torch.equal(codes[:, 0].repeat_interleave(2), episode.query_y[b])
    assert set(episode.support_y.flatten().tolist()) == set(range(9)), "all codes of the vocabulary are used"


def test_episodes_stay_what_they_were():
    """Golden digests: a change of the sampler would silently make old and new results incomparable."""
    glyphs = tasks.build({"name": "glyphs", "augment": None})
    episode = glyphs.episodes("meta_train", range(3))
    parts = torch.cat([episode.support_y, episode.query_y], dim=1).numpy().tobytes()
    assert hashlib.sha256(parts).hexdigest()[:16] == "4f795896cade98bf"
    sine = tasks.build({"name": "sine", "tasks": 3})
    assert sine.episodes("meta_test", [5]).query_y[0, 0, :3].tolist() == pytest.approx(
        [0.79315084, 1.14343143, 1.15285742], abs=1e-6
    )
