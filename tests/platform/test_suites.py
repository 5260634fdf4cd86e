"""Suites ask what they say they ask, and refuse in one line what a family cannot serve."""

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig, RidgeConfig
from mambacl.platform.evaluation.about import About
from mambacl.platform.evaluation.cells import cells_of, compute
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.figures import styles
from mambacl.platform.evaluation.suites.noise import NoiseSuite
from mambacl.platform.evaluation.suites.overfitting import Overfitting
from mambacl.platform.evaluation.suites.registry import SUITES, find_suite
from mambacl.platform.evaluation.suites.robustness import Robustness
from mambacl.platform.evaluation.suites.shift import Shift
from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import GlyphsConfig

TASK = GlyphsConfig(tasks=3, shots=2, queries=1, vocabulary=12)
MONO = ("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique")
SHIFTED = TASK.model_copy(update={"test_domains": MONO})
ABOUT = About.of(TASK)


def rows_of(suite, task=TASK, episodes=16):
    """Rows as an evaluation has them, of two references."""
    found = []
    for point in suite.points(built_family(task), "meta_test"):
        for learner in (NearestMeanConfig(), RidgeConfig()):
            contestant = Contestant.reference(learner)
            for cell in cells_of(contestant, task, point, 0, episodes):
                who = {"contestant": contestant.label, "learner": learner.name, "trained": False, "seed": 0}
                sizes = {"split": point.split, "tasks": point.tasks, "shots": point.shots}
                found.append(compute(cell).assign(**(who | sizes | point.where)))
    return pd.concat(found, ignore_index=True)


@pytest.mark.parametrize(
    ("suite", "task"),
    [
        (find_suite("standard"), TASK),
        (find_suite("{name: length, tasks: [2, 5], shots: [1]}"), TASK),
        (NoiseSuite(strengths=(1, 8)), TASK),
        (Shift(), SHIFTED),
        (Overfitting(), TASK),
        (Robustness(), TASK),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_suite_has_tables_with_counts_and_pictures(suite, task, tmp_path):
    from mambacl.platform.evaluation.figures import save

    rows = rows_of(suite, task)
    for name, table in suite.tables(rows, ABOUT).items():
        assert len(table), name
        assert (table["episodes"] == 16).all()
        assert (table["seeds"] == 1).all()
    scores = suite.tables(rows, ABOUT)["scores"]
    assert set(suite.axes) <= set(scores)
    assert len(scores) == 2 * len(suite.points(built_family(task), "meta_test"))
    assert (scores["low"] <= scores["score"]).all()
    assert (scores["best_place"] <= scores["worst_place"]).all()
    for name, figure in suite.figures(rows, ABOUT).items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 5000


def test_noise_makes_answers_worse():
    suite = NoiseSuite(sites=("pixel",), targets=("query",), strengths=(1, 10))
    rows = rows_of(suite, GlyphsConfig(tasks=5, shots=8, queries=2), episodes=64)
    scores = suite.tables(rows, ABOUT)["scores"]
    nearest = scores[scores["contestant"] == "nearest_mean"].set_index("strength")
    assert nearest.loc[0, "low"] > nearest.loc[10, "high"]
    assert nearest.loc[10, "signal_to_noise"] == pytest.approx(0.01)
    assert np.isnan(nearest.loc[0, "signal_to_noise"])


def test_overfitting_asks_the_images_as_they_are():
    """Augmented images of meta-train would make known classes look harder than they are."""
    test, train = Overfitting().points(built_family(TASK), "meta_test")
    family = built_family(TASK)
    assert (test.split, train.split) == ("meta_test", "meta_train")
    plain, augmented = train.of(family).episodes("meta_train", [0]), family.episodes("meta_train", [0])
    images = {image.numpy().tobytes() for image in family.bank.images}
    assert all(image.numpy().tobytes() in images for image in plain.support_x[0])
    assert not all(image.numpy().tobytes() in images for image in augmented.support_x[0])


def test_shift_asks_new_classes_in_old_and_new_domains():
    family = built_family(SHIFTED)
    left_out, *rest = Shift().points(family, "meta_test")
    assert left_out.where == {"domain": "all left out"}
    assert [point.where["domain"] for point in rest] == ["trained on"], "one face has one image a class: too few"
    known = rest[0].of(family)
    assert set(known.pools["meta_test"].domains) == set(family.pools["meta_train"].domains)
    assert not set(known.classes["meta_test"]) & set(family.classes["meta_train"])
    assert not torch.equal(known.episodes("meta_test", [0]).support_x, family.episodes("meta_test", [0]).support_x)
    with pytest.raises(ConfigError, match=r"shift needs a family with task\.test_domains"):
        Shift().points(built_family(TASK), "meta_test")


def test_suites_are_named_or_written_as_yaml():
    assert find_suite("robustness") == Robustness()
    assert find_suite("{name: length, tasks: [4]}").tasks == (4,)
    assert next(iter(SUITES)) == "standard"
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        find_suite("lenght")
    with pytest.raises(ConfigError, match=r"suite.task: unknown field .did you mean 'tasks'"):
        find_suite("{name: length, task: [4]}")


def test_a_learner_has_one_colour_and_its_variants_other_marks():
    def rows(*contestants):
        return pd.DataFrame(contestants, columns=["contestant", "learner", "trained"])

    alone = styles(rows(("attention", "attention", True)))
    among = styles(
        rows(
            ("mamba w=0", "mamba", True), ("mamba w=5", "mamba", True), ("attention", "attention", True),
            ("ridge", "ridge", False), ("knn", "knn", False),
        )
    )  # fmt: skip
    assert among["attention"] == alone["attention"]
    assert among["mamba w=0"]["color"] == among["mamba w=5"]["color"] != among["attention"]["color"]
    assert len({tuple(style.items()) for style in among.values()}) == 5
