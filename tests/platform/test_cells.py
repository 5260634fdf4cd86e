"""Cells: named by what decides their numbers, and equal however episodes are cut into them."""

import numpy as np
import pandas as pd
import pytest
import torch

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.evaluation.cells import EPISODES, cells_of, compute
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.length import Length
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.platform.training import checkpoint
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.images_config import GlyphsConfig
from mambacl.tasks.noise_config import NoiseConfig
from mambacl.tasks.stream_config import StreamConfig

TASK = GlyphsConfig(tasks=3, shots=2, queries=2, vocabulary=6)
POINT = Point(where={}, tasks=3, shots=2, queries=2, split="meta_test")
NEAREST = Contestant.reference(NearestMeanConfig())


def cells(episodes, contestant=NEAREST, task=TASK, **changes):
    return cells_of(contestant, task, POINT.model_copy(update=changes), 0, episodes)


def test_adding_episodes_adds_cells_and_keeps_the_others():
    few, many = cells(2 * EPISODES), cells(3 * EPISODES)
    assert [cell.name for cell in many[:2]] == [cell.name for cell in few]
    assert sum(cell.stop - cell.start for cell in many) == 3 * EPISODES


def test_a_name_depends_on_the_numbers_and_not_on_labels():
    cell = cells(5)[0]
    assert cells(5, contestant=NEAREST.model_copy(update={"label": "other"}))[0].name == cell.name
    assert cells(5, task=TASK.model_copy(update={"augment": None}))[0].name == cell.name, "meta-test is not augmented"
    assert cells(5, where={"called": "otherwise"})[0].name == cell.name
    others = [
        cells(6)[0], cells(5, shots=1)[0], cells(5, split="meta_val")[0], cells(5, augmented=False)[0],
        cells(5, stream=StreamConfig(order="shuffled"))[0], cells(5, noise=NoiseConfig(site="pixel"))[0],
        cells(5, contestant=NEAREST.model_copy(update={"sha256": "0"}))[0], cells(5, task=TASK.model_copy(update={"seed": 1}))[0],
    ]  # fmt: skip
    assert len({other.name for other in [cell, *others]}) == 9


@pytest.mark.parametrize("split", ["meta_train", "meta_test"])
@pytest.mark.parametrize(
    "change",
    [
        {"vocabulary": 7}, {"vocabulary": None}, {"augment": None}, {"augment": {"turns": False}}, {"by_script": True}, {"seed": 1},
        {"target": "rotation"}, {"stream": {"uneven": 0.5}}, {"noise": {"site": "pixel"}}, {"train_classes": 50}, {"train_images": 6},
        {"drop_small_classes": True}, {"tasks": 2}, {"shots": 1}, {"queries": 1}, 
        {
            "class_disjoint": False, "test_domains": ["Sans", "Serif", "SansMono", "Sans-Bold"],
            "val_domains": ["Serif-Bold", "SansMono-Bold", "Sans-Oblique", "Serif-Italic"],
        },
    ],
    ids=str,
)  # fmt: skip
def test_of_two_families_that_name_a_cell_alike_the_episodes_are_the_same(change, split):
    """Or else a reference's result on the one would be taken for that on the other."""
    task = parse(GlyphsConfig, TASK.model_dump(exclude_unset=True) | change)
    own, other = cells(2, split=split)[0], cells(2, task=task, split=split)[0]
    if own.name == other.name:
        mine, its = (next(cell.batches(cell.point.of(built_family(cell.task)))) for cell in (own, other))
        for field in ("support_x", "support_y", "query_x", "query_y"):
            assert torch.equal(getattr(mine, field), getattr(its, field)), field


def test_an_episode_has_the_same_score_in_any_cell():
    whole = compute(cells(8)[0])
    parts = pd.concat(
        [compute(cells(8)[0].model_copy(update={"start": a, "stop": b})) for a, b in ((0, 3), (3, 8))],
        ignore_index=True,
    )
    pd.testing.assert_frame_equal(whole, parts)
    assert np.allclose(np.stack(list(whole["score_by_task"])).mean(1), whole["score"])


def test_a_reference_on_features_is_the_reference_on_what_the_encoder_makes(tmp_path):
    config = parse(
        ExperimentConfig,
        {
            "name": "tiny",
            "task": TASK.model_dump(),
            "learner": {"name": "prototypes", "width": 12, "encoder": {"name": "mlp"}},
            "train": {"steps": 2, "batch": 2, "evaluate_every": 2, "evaluate_episodes": 2},
        },
    )
    meta_train(config, tmp_path, Worker(), lambda saved: None, lambda step, point: False)
    model = Contestant.of("model", checkpoint.best(tmp_path))
    on_model = Contestant.reference(NearestMeanConfig(), model)
    assert on_model.label == "nearest_mean on model"
    assert on_model.sha256 != NEAREST.sha256
    episode, encoder = built_family(TASK).episodes("meta_test", range(4)), built_learner(model, TASK).encoder
    with torch.no_grad():
        support, query = (
            encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (episode.support_x, episode.query_x)
        )
        codes = [[int(c) for c in row.unique()] for row in episode.support_y]
        means = [
            torch.stack([s[y == c].mean(0) for c in row])
            for s, y, row in zip(support, episode.support_y, codes, strict=True)
        ]
        nearest = [[row[i] for i in torch.cdist(q, m).argmin(1)] for q, m, row in zip(query, means, codes, strict=True)]
        assert on_model.load(built_family(TASK))(episode).prediction.argmax(-1).tolist() == nearest
    other = on_model.model_copy(update={"sha256": "0"})
    with pytest.raises(ConfigError, match="refused, it holds another model"):
        other.load(built_family(TASK))


def test_the_length_suite_goes_as_far_as_codes_and_images_allow():
    family = built_family(TASK)
    sizes = [(p.tasks, p.shots) for p in Length().points(family, "meta_test")]
    assert sizes[0] == (3, 2), "the trained size comes first"
    assert set(sizes) == {(3, 1), (3, 2), (3, 5), (3, 10), (5, 2)}
    assert Standard().points(family, "meta_test") == [POINT]
    small = built_family(GlyphsConfig(tasks=1, shots=11, queries=1, vocabulary=1)).varied(shots=1, queries=11)
    with pytest.raises(
        ConfigError, match="suite: length needs another size than the trained one, such as 5 tasks x 1 shots"
    ):
        Length().points(small, "meta_test")
