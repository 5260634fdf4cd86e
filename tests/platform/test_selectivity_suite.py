"""Association maps: what queries read, example by example."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.linear_attention_config import LinearAttentionConfig
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.registry import build
from mambacl.learners.selectivity import selectivity_losses, true_mass
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.about import About
from mambacl.platform.evaluation.cells import cells_of
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.measures.associations import associations_of
from mambacl.platform.evaluation.suites.selectivity import Selectivity
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.images_config import GlyphsConfig
from mambacl.tasks.recall_config import RecallConfig
from mambacl.tasks.stream_config import StreamConfig

TASK = GlyphsConfig(tasks=3, shots=2, queries=2, vocabulary=7)
LEARNERS = [MambaConfig(width=8, state_size=4), AttentionConfig(width=8), LinearAttentionConfig(width=8)]


@pytest.fixture(params=LEARNERS, ids=lambda config: config.name)
def learner(request):
    torch.manual_seed(0)
    return build(request.param, built_family(TASK).spec).eval()


@pytest.fixture
def rows(learner):
    family = built_family(TASK)
    (point,) = Selectivity().points(family, "meta_test")
    cell = cells_of(Contestant.reference(NearestMeanConfig()), TASK, point, 0, 5, "associations")[0]
    with torch.no_grad():
        return associations_of(cell, family, learner)


def test_masses_are_those_of_the_learners_package(learner, rows):
    episode = built_family(TASK).episodes("meta_test", range(5))
    with torch.no_grad():
        association = learner(episode, layers=(-1,), exact=True).associations[0]
    assert rows["mass"].to_numpy() == pytest.approx(true_mass(association, episode).mean(1).numpy(), abs=1e-6)
    # Of one head, the regulariser's `mass` loss is -log of it.
    heads = [dataclasses.replace(association, scores=scores.unsqueeze(1)) for scores in association.scores.unbind(1)]
    config = SelectivityConfig(loss="mass")
    masses = [(-selectivity_losses(head, episode, config)[0]).exp().mean(1).numpy() for head in heads]
    assert rows["mass_regularised"].to_numpy() == pytest.approx(np.mean(masses, axis=0), abs=1e-6)


def test_maps_are_shares_of_the_examples_and_kept_for_the_first_episode_only(rows):
    assert [len(found) for found in rows["map"]] == [3 * 6, 0, 0, 0, 0]
    assert rows["map"][0].reshape(3, 6).sum(1) == pytest.approx(1, abs=1e-5)
    assert np.stack(list(rows["mass_by_task"])).mean(1) == pytest.approx(rows["mass"].to_numpy())
    assert rows["entropy"].between(0, 1).all()


def test_only_learners_with_that_layer_are_asked(learner):
    assert Selectivity().takes(learner)
    assert Selectivity(layers=(0, 1)).takes(learner)
    assert not Selectivity(layers=(2,)).takes(learner)
    assert not Selectivity(layers=(-3,)).takes(learner)
    assert not Selectivity().takes(build(NearestMeanConfig(), built_family(TASK).spec))


def test_streams_are_task_after_task_and_queries_are_of_tasks_that_there_are():
    flawed = built_family(TASK.model_copy(update={"stream": StreamConfig(order="shuffled", distractors=1, open_set=1)}))
    (point,) = Selectivity(queries=(0, 2)).points(flawed, "meta_test")
    assert point.of(flawed).config.stream == StreamConfig()
    with pytest.raises(ConfigError, match="queries of tasks 0 to 2, got 3"):
        Selectivity(queries=(0, 3)).points(flawed, "meta_test")
    with pytest.raises(ConfigError, match="selectivity needs streams of the asked tasks alone"):
        Selectivity().points(built_family(RecallConfig(tasks=4, reassign=0.5)), "meta_test")


def test_tables_and_pictures_are_of_each_layer(rows, tmp_path):
    from mambacl.platform.evaluation.figures import save

    who = {"contestant": "one", "learner": "mamba", "trained": True, "seed": 0}
    both = pd.concat([rows.assign(layer=layer, **who) for layer in (0, -1)], ignore_index=True)
    suite, about = Selectivity(layers=(0, -1), queries=(1,)), About.of(TASK)
    found = suite.tables(both, about)["selectivity"]
    assert found["layer"].tolist() == [0, -1]
    assert found["mass"].to_numpy() == pytest.approx(rows["mass"].mean())
    assert (found["mass_low"] <= found["mass"]).all()
    figures = suite.figures(both, about)
    assert len(figures) == 4
    (map_axis,) = figures["selectivity_maps_layer_0"].axes
    drawn = [bar.get_height() for bar in map_axis.patches[: 3 * 2]]
    assert drawn == pytest.approx(list(rows["map"][0].reshape(3, 6)[1]))
    for name, figure in figures.items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 5000


def trained(folder, learner):
    """A run folder of the learner after two steps."""
    config = parse(
        ExperimentConfig,
        {
            "name": folder.name,
            "task": TASK.model_dump(),
            "learner": learner,
            "train": {"steps": 2, "batch": 2, "evaluate_every": 2, "evaluate_episodes": 2},
        },
    )
    meta_train(config, folder, Worker(), lambda saved: None, lambda step, point: False)
    return str(folder)


def test_who_has_no_maps_is_left_out_and_alone_refused(tmp_path):
    """The one left out comes first, so that nothing of the evaluation may go under its name."""
    without = trained(tmp_path / "without", {"name": "prototypes", "width": 8, "encoder": {"name": "mlp"}})
    with_maps = trained(tmp_path / "with_maps", {"name": "mamba", "width": 8, "state_size": 4, "layers": 1})

    def evaluated(*models):
        line = [
            "evaluate",
            *models,
            "--suite",
            "selectivity",
            "--episodes",
            "4",
            "--storage.root",
            str(tmp_path),
            "--json",
        ]
        return subprocess.run(
            [sys.executable, "-m", "mambacl.platform.cli", *line], capture_output=True, text=True, timeout=200
        )

    refused = evaluated(without)
    assert refused.returncode == 2
    assert (
        "suite: selectivity needs a learner with association maps of these layers; there is none among"
        in refused.stderr
    )
    child = evaluated(without, with_maps)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "left out, since selectivity needs" in child.stdout
    summary = json.loads(child.stdout.splitlines()[-1])
    assert "with_maps" in summary["model"]
    assert (summary["models"], summary["references"]) == ({}, {})
    assert summary["mass_low"] <= summary["mass"] <= summary["mass_high"]
