"""What `bench training` measures, and tests of sweeps with it."""

import datetime

import optuna

from mambacl.platform.benchmarks import training


def test_seconds_between_trials_are_those_between_their_ends():
    begin = datetime.datetime(2026, 1, 1)
    trials = [optuna.trial.create_trial(value=0.0) for _ in range(3)]
    for trial, second in zip(trials, (1.0, 3.0, 3.5), strict=True):
        trial.datetime_complete = begin + datetime.timedelta(seconds=second)
    assert training.between(trials).tolist() == [2.0, 0.5]
