"""Fault 9: two sweeps promote their candidates at the same moment, with one root or with two that share an MLflow server."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.session import session
from mambacl.platform.sweeping.promotion import CLAIM, Promotion, promote
from mambacl.platform.tracking.registry import register
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse

FIRST, GOOD, BETTER = 1, 2, 3
"""Versions, by how well they are trained."""


def config(root, uri, steps=1):
    return parse(
        ExperimentConfig,
        {
            "name": "rivals",
            "task": {"name": "sine", "tasks": 3, "shots": 5, "queries": 2},
            "learner": {"name": "alpaca", "width": 16},
            "train": {"steps": steps, "batch": 16, "warmup": 5, "learning_rate": 0.01, "evaluate_episodes": 16},
            "storage": {"root": str(root), "tracking_uri": uri},
        },
    )


@pytest.fixture(scope="module")
def rivals(tmp_path_factory):
    """(client, promotions): a model with a champion and two candidates that both beat it, and for each of them what promotes
    it from a root of its own or from a shared one."""
    root = tmp_path_factory.mktemp("rivals")
    uri = f"sqlite:///{root}/mlflow.db"
    chosen = []
    for steps in (1, 60, 400):
        experiment, run = config(root / "one", uri, steps), root / "one" / f"run-{steps}"
        open_record(experiment, run)
        meta_train(experiment, run, Worker(), lambda saved: None, lambda step, point: False)
        close_record(run, None)
        chosen.append((checkpoint.best(run), Store(experiment.storage).deliver(run).run_id))
    storages = {place: StorageConfig(root=str(root / place), tracking_uri=uri) for place in ("one", "two")}
    assert register(Store(storages["one"]), *chosen[0], "card", {}) == FIRST
    with ThreadPoolExecutor(2) as pool:  # candidates of two sweeps come at the same moment, too
        made = [
            pool.submit(register, Store(s), *c, "card", {}) for s, c in zip(storages.values(), chosen[1:], strict=True)
        ]
        numbers = [one.result() for one in made]
    assert sorted(numbers) == [2, 3], "no version is lost"
    by_skill = {FIRST: 1, GOOD: numbers[0], BETTER: numbers[1]}

    def promotion(skill, place):
        experiment = config(root / place, uri)
        return lambda: promote(Store(experiment.storage), experiment, by_skill[skill])

    with session(None):
        yield Store(storages["one"]).client, by_skill, promotion


@pytest.fixture
def start(rivals):
    """The first version is champion, and nothing else was ever promoted."""
    client, by_skill, promotion = rivals
    for number in by_skill.values():
        for tag in client.get_model_version("rivals", str(number)).tags:
            if tag.startswith("promotion"):
                client.delete_model_version_tag("rivals", str(number), tag)
    client.set_registered_model_alias("rivals", "champion", "1")


def champion(client):
    return int(client.get_model_version_by_alias("rivals", "champion").version)


def both(promotion, places):
    """Whether each of the two is told that it is champion."""
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(promotion(skill, place)) for skill, place in zip((GOOD, BETTER), places, strict=True)]
        return [one.result(timeout=200) for one in waiting]


def tags(client, number):
    return client.get_model_version("rivals", str(number)).tags


def test_the_first_version_becomes_champion_and_a_worse_one_does_not_replace_a_better(rivals, start):
    client, by_skill, promotion = rivals
    assert promotion(BETTER, "one")()
    assert not promotion(GOOD, "one")()
    assert champion(client) == by_skill[BETTER]
    assert "promotion.replaced" not in tags(client, by_skill[GOOD])
    assert tags(client, by_skill[GOOD])["promotion"].startswith(f"minus version {by_skill[BETTER]}: ")
    client.delete_registered_model_alias("rivals", "champion")
    assert promotion(FIRST, "two")()


@pytest.mark.parametrize("late", [GOOD, BETTER, None])
def test_with_two_roots_the_better_one_wins_whoever_sets_the_alias_last(rivals, start, monkeypatch, tell_fault, late):
    """Both have compared themselves with the old champion before either sets the alias."""
    client, by_skill, promotion = rivals
    barrier, crown, crowned = threading.Barrier(2), Promotion.crown, []

    def together(self, version, before):
        if before == 1:
            barrier.wait(timeout=100)
            if late and version == by_skill[late]:
                time.sleep(0.5)
        crowned.append(version)
        crown(self, version, before)

    monkeypatch.setattr(Promotion, "crown", together)
    began = time.monotonic()
    won = both(promotion, ("one", "two"))
    assert set(crowned[:2]) == {by_skill[GOOD], by_skill[BETTER]}, "both were promoted"
    assert champion(client) == by_skill[BETTER]
    assert won == [False, True]
    replaced = tags(client, by_skill[BETTER])["promotion.replaced"]
    assert replaced.startswith(("version 1, 20", f"version {by_skill[GOOD]}, 20"))
    assert ", by -" in replaced, "it says by which difference; errors are to be low"
    assert tags(client, by_skill[GOOD])["promotion.replaced_by"].startswith(f"version {by_skill[BETTER]}, 20")
    assert CLAIM in tags(client, by_skill[GOOD])
    if late is None:
        took = f"{time.monotonic() - began:.1f} s"
        tell_fault(9, "two sweeps promote at once, two roots", 3, "the better one is champion", "nothing", took)


@pytest.mark.parametrize("slow", [GOOD, BETTER])
def test_one_that_still_compares_with_the_old_champion_cannot_undo_a_better_promotion(rivals, start, monkeypatch, slow):
    client, by_skill, promotion = rivals
    beats, done = Promotion.beats, threading.Event()

    def slowly(self, version, holder):
        better = beats(self, version, holder)
        if version == by_skill[slow]:
            assert done.wait(timeout=100)
        return better

    monkeypatch.setattr(Promotion, "beats", slowly)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(promotion(slow, "one"))
        time.sleep(0.5)  # it has read who is champion
        assert promotion(GOOD if slow == BETTER else BETTER, "two")(), "the other one is alone by now"
        done.set()
        assert waiting.result(timeout=100) == (slow == BETTER)
    assert champion(client) == by_skill[BETTER]


def test_with_one_root_they_wait_for_each_other(rivals, start, tell_fault):
    client, by_skill, promotion = rivals
    began = time.monotonic()
    won = both(promotion, ("one", "one"))
    assert champion(client) == by_skill[BETTER]
    assert won[1], "the better one, whether it came first or second"
    tell_fault(9, "two sweeps promote at once, one root", 1, "the better one is champion", "nothing",
               f"{time.monotonic() - began:.1f} s")  # fmt: skip
