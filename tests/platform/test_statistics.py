"""Intervals cover what they claim to cover, and the same values always give the same interval."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from mambacl.platform.evaluation.statistics import interval, paired_difference, places


def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = sum(
        found.low <= 0.3 <= found.high for found in (interval((rng.random(100) < 0.3) * 1.0) for _ in range(200))
    )
    assert 180 <= covered <= 198


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(1).random(50)
    assert interval(values) == interval(values.copy())


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(2)
    hard, noise = rng.random(200), rng.normal(0, 0.01, 200)
    difference = paired_difference(hard + 0.02 + noise, hard)
    assert difference.low > 0.015
    assert difference.high - difference.low < 0.1 * (interval(hard).high - interval(hard).low)


@pytest.mark.parametrize("values", [[0.25], [0.5, 0.5, 0.5]])
def test_values_without_spread(values):
    found = interval(np.array(values))
    assert (found.low, found.score, found.high) == (values[0],) * 3
    assert found.episodes == len(values)


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(3).random(80)
    ours = interval(values)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(4)
    alike = np.tile(rng.random(100), (4, 1))
    apart = alike + np.array([[-0.3], [-0.1], [0.1], [0.3]])
    assert interval(alike).seeds == 4
    assert interval(apart).high - interval(apart).low > 2 * (interval(alike).high - interval(alike).low)


def test_one_seed_that_failed_does_not_decide():
    """Interquartile mean: of four seeds the best and the worst are left out."""
    scores = np.array([[0.9], [0.9], [0.9], [0.1]]) * np.ones((4, 50))
    assert interval(scores).score == pytest.approx(0.9)


def test_places_say_who_cannot_be_told_apart():
    rng = np.random.default_rng(5)
    hard = rng.random(400)
    scores = {
        "best": hard + 0.1 + rng.normal(0, 0.05, 400),
        "also": hard + 0.1 + rng.normal(0, 0.05, 400),
        "last": hard + rng.normal(0, 0.05, 400),
    }
    assert places(scores, True) == {"best": (1, 2), "also": (1, 2), "last": (3, 3)}
    assert places(scores, False) == {"best": (2, 3), "also": (2, 3), "last": (1, 1)}


def test_pairs_need_the_same_episodes():
    with pytest.raises(ValueError, match="same episodes, got 3 and 4"):
        paired_difference(np.ones(3), np.ones(4))
