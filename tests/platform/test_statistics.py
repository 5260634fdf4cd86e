"""Intervals cover what they claim to cover, and the same values always give the same interval."""

import numpy as np
import pytest

from mambacl.platform.evaluation.statistics import interval, paired_difference


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
