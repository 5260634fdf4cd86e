"""Forgetting is measured in one pass, with numbers that the slow way gives too."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig, RidgeConfig
from mambacl.learners.gradient.configs import OnlineSgdConfig
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.objective import losses, scores
from mambacl.learners.registry import build
from mambacl.platform.evaluation.about import About
from mambacl.platform.evaluation.cells import cells_of
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.measures.forgetting import forgetting_of
from mambacl.platform.evaluation.suites.forgetting import Forgetting
from mambacl.tasks.config import ConfigError
from mambacl.tasks.images_config import GlyphsConfig
from mambacl.tasks.noise_config import NoiseConfig
from mambacl.tasks.recall_config import RecallConfig
from mambacl.tasks.sine_config import SineConfig
from mambacl.tasks.stream_config import StreamConfig

K, S, Q = 4, 3, 2
TASK = GlyphsConfig(tasks=K, shots=S, queries=Q, vocabulary=7)


def learner_of(config, task):
    """Fresh, with answers that are not even: an untrained head is zero."""
    torch.manual_seed(0)
    learner = build(config, built_family(task).spec).double().eval()
    if hasattr(learner, "head"):
        torch.nn.init.normal_(learner.head.weight)
    return learner


def measured(config, task=TASK, episodes=6):
    family = built_family(task)
    (point,) = Forgetting().points(family, "meta_test")
    cell = cells_of(Contestant.reference(NearestMeanConfig()), task, point, 0, episodes, "forgetting")[0]
    with torch.no_grad():
        return forgetting_of(cell, point.of(family), learner_of(config, task))


@pytest.mark.parametrize("config", [MambaConfig(width=8, state_size=4), AttentionConfig(width=8), NearestMeanConfig()])
def test_the_matrix_is_that_of_streams_cut_short(config):
    """The reference: one forward pass over the first k tasks for every k."""
    family, learner = built_family(TASK), learner_of(config, TASK)
    episode = family.episodes("meta_test", range(6))
    found = np.stack(list(measured(config)["matrix"])).reshape(6, K, K)
    seen = np.stack(list(measured(config)["matrix_seen"])).reshape(6, K, K)
    for k in range(K):
        T, M = (k + 1) * S, (k + 1) * Q
        short = dataclasses.replace(
            episode,
            **{name: getattr(episode, name)[:, :T] for name in ("support_x", "support_y", "support_task")},
            **{name: getattr(episode, name)[:, :M] for name in ("query_x", "query_y", "query_task")},
            query_after=torch.full((6, M), T - 1),
        )
        with torch.no_grad():
            prediction = learner(short).prediction
        among_seen = scores(prediction, short, "seen").double().unflatten(1, (k + 1, Q)).mean(2)
        assert seen[:, k, : k + 1] == pytest.approx(among_seen.numpy())
        assert np.isnan(found[:, k, k + 1 :]).all()
        for b in range(6):
            for i in range(k + 1):
                codes = short.support_y[b, : (i + 1) * S].unique()
                best = codes[prediction[b, i * Q : (i + 1) * Q][:, codes].argmax(1)]
                assert found[b, k, i] == pytest.approx(float((best == short.query_y[b, i * Q]).double().mean()))
    with torch.no_grad():
        prediction = learner(episode).prediction
    for column, codes in (("score", "all"), ("score_seen", "seen")):
        whole = scores(prediction, episode, codes).double().mean(1)
        assert measured(config)[column].to_numpy() == pytest.approx(whole.numpy())


def test_values_are_scored_by_their_loss():
    task = SineConfig(tasks=3, shots=2, queries=2)
    rows = measured(RidgeConfig(), task)
    episode = built_family(task).episodes("meta_test", range(6))
    with torch.no_grad():
        loss = losses(learner_of(RidgeConfig(), task)(episode).prediction, episode).double()
    assert rows["score"].to_numpy() == pytest.approx(loss.mean(1).numpy())
    end = np.stack(list(rows["matrix"])).reshape(6, 3, 3)[:, -1]
    assert end == pytest.approx(loss.unflatten(1, (3, 2)).mean(2).numpy())


def test_noise_inside_the_learner_is_that_of_the_whole_episode():
    task = TASK.model_copy(update={"noise": NoiseConfig(site="token", strength=3)})
    config = MambaConfig(width=8, state_size=4)
    episode = built_family(task).episodes("meta_test", range(6))
    with torch.no_grad():
        whole = scores(learner_of(config, task)(episode).prediction, episode).double().mean(1)
    assert measured(config, task)["score"].to_numpy() == pytest.approx(whole.numpy())
    assert not measured(config, task)["matrix"].map(list).equals(measured(config)["matrix"].map(list))


def test_class_means_forget_nothing_and_gradient_steps_do():
    """A class mean does not change when another class comes, and ridge hardly. A linear map trained step by step comes to
    prefer the last classes: the first ones lose against them, and not against each other."""
    means, ridge, steps = (
        measured(config, episodes=64).mean(numeric_only=True)
        for config in (NearestMeanConfig(), RidgeConfig(), OnlineSgdConfig())
    )
    assert means["forgetting"] == 0
    assert abs(ridge["forgetting"]) < 0.05
    assert steps["forgetting_seen"] > means["forgetting_seen"] + 0.2


def test_a_loss_that_rises_is_forgetting():
    rows = measured(RidgeConfig(), SineConfig(tasks=3, shots=4, queries=2), episodes=32)
    matrix = np.stack(list(rows["matrix"])).reshape(-1, 3, 3)
    lost = [matrix[:, 2, task] - matrix[:, task, task] for task in (0, 1)]
    assert rows["forgetting"].to_numpy() == pytest.approx(np.mean(lost, axis=0))
    assert rows["forgetting"].mean() > 0.001


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ConfigError, match="forgetting needs at least 2 tasks"):
        Forgetting().points(built_family(TASK.model_copy(update={"tasks": 1})), "meta_test")
    with pytest.raises(ConfigError, match="forgetting needs streams of the asked tasks alone"):
        Forgetting().points(built_family(RecallConfig(tasks=4, reassign=0.5)), "meta_test")
    flawed = built_family(TASK.model_copy(update={"stream": StreamConfig(order="shuffled", distractors=1)}))
    (point,) = Forgetting().points(flawed, "meta_test")
    assert point.of(flawed).config.stream == StreamConfig(), "streams are task after task all the same"


def test_tables_and_pictures_show_what_is_lost(tmp_path):
    """The matrix of the table is that of the rows, with tasks and times from 1."""
    from mambacl.platform.evaluation.figures import save

    rows = pd.concat(
        measured(config).assign(contestant=config.name, learner=config.name, trained=False, seed=0)
        for config in (NearestMeanConfig(), OnlineSgdConfig())
    ).reset_index(drop=True)
    about = About.of(TASK)
    tables = Forgetting().tables(rows, about)
    lost = tables["forgetting"].set_index("contestant")
    assert lost.loc["online_sgd", "forgetting_seen"] == pytest.approx(rows["forgetting_seen"][6:].mean())
    assert set(lost["best_place"]) | set(lost["worst_place"]) <= {1, 2}
    matrices = tables["matrices"]
    places = {(task, after) for after in range(1, K + 1) for task in range(1, after + 1)}
    assert len(matrices) == 2 * len(places)
    assert set(zip(matrices["task"], matrices["after"], strict=True)) == places
    mean = np.stack(list(rows["matrix"][:6])).mean(0).reshape(K, K)
    for row in matrices[matrices["contestant"] == "nearest_mean"].to_dict("records"):
        assert row["score"] == pytest.approx(mean[row["after"] - 1, row["task"] - 1])
        assert row["low"] <= row["score"] <= row["high"]
    for name, figure in Forgetting().figures(rows, about).items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 5000
