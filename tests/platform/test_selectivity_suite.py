"""Association maps: what queries read, example by example."""

import numpy as np
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.learners.mixers.linear_attention_config import LinearAttentionConfig
from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.registry import build
from mambacl.learners.selectivity import selectivity_losses, true_mass
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.platform.evaluation.cells import cells_of
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.measures.associations import associations_of, by_example, shares
from mambacl.platform.evaluation.suites.selectivity import Selectivity
from mambacl.tasks.images_config import GlyphsConfig

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
    regularised = by_example(shares(association), association)
    assert regularised.sum(2).numpy() == pytest.approx(1)
    # -log of the mass on the own task is the regulariser's `mass` loss, for one head.
    if association.scores.shape[1] == 1:
        config = SelectivityConfig(loss="mass", weight=1, tokens="both")
        loss = selectivity_losses(association, episode, config)[0]
        own = episode.query_task.unsqueeze(2) == episode.support_task.unsqueeze(1)
        assert -(regularised * own).sum(2).log().numpy() == pytest.approx(loss.numpy(), abs=1e-4)


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
