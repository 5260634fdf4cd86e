"""Line-ups: learners brought to one budget of parameters, state or arithmetic, within the 5 % that is promised."""

import pytest

from mambacl.learners.registry import CONFIGS
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.cost import cost_of
from mambacl.platform.overrides import vary
from mambacl.platform.studying.lineup import TOLERANCE, fit
from mambacl.tasks.config import ConfigError, parse

IMAGES = parse(
    ExperimentConfig,
    {"name": "images", "task": {"name": "glyphs", "tasks": 4, "shots": 3, "queries": 1, "vocabulary": 20}},
)
VALUES = parse(ExperimentConfig, {"name": "values", "task": {"name": "sine", "tasks": 4, "shots": 3, "queries": 1}})
SIZED = {
    measure: [name for name, kind in CONFIGS.items() if (kind.memory if measure == "state_floats" else kind.scale)]
    for measure in ("parameters", "state_floats", "episode_flops")
}
BUDGETS = {"parameters": 400_000, "state_floats": 20_000, "episode_flops": 40e6}


@pytest.mark.parametrize(("measure", "name"), [(m, name) for m, names in SIZED.items() for name in names])
def test_every_learner_comes_within_five_per_cent_of_the_budget(measure, name):
    config = vary(VALUES if name == "alpaca" else IMAGES, {"learner.name": name})
    fitted = fit(config, measure, BUDGETS[measure])
    assert getattr(cost_of(fitted), measure) == pytest.approx(BUDGETS[measure], rel=TOLERANCE)
    before, after = config.learner.model_dump(), fitted.learner.model_dump()
    fields = config.learner.memory if measure == "state_floats" else config.learner.scale
    assert {field for field in before if before[field] != after[field]} <= set(fields), "nothing else has changed"


def test_a_budget_that_cannot_be_met_is_refused_with_the_nearest_size():
    with pytest.raises(
        ConfigError, match=r"learner: mamba comes no nearer to parameters = 1,000 than 9.,..., with width = 1"
    ):
        fit(IMAGES, "parameters", 1000)
    with pytest.raises(ConfigError, match=r"learner\.name: 'ridge' has no size that changes its parameters"):
        fit(vary(IMAGES, {"learner.name": "ridge"}), "parameters", 1000)
