"""What learners cost, shown before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mambacl.learners.registry import CONFIGS
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.console import SIZES, amount, console, settings, size_cells, table
from mambacl.platform.cost import cost_of
from mambacl.platform.overrides import vary
from mambacl.platform.studying.config import Measure
from mambacl.platform.studying.lineup import fit
from mambacl.tasks.config import ConfigError


def matched(config: ExperimentConfig, measure: Measure, budget: float | None, names: Sequence[str]) -> dict[str, Any]:
    """Show learners resized to a budget on the experiment's task, by default to what its own learner has.

    names: by default all learners that have a size. Raises ConfigError for one that cannot be brought to the budget.
    """
    budget = budget or float(getattr(cost_of(config), measure))
    chosen = names or [
        name for name, kind in CONFIGS.items() if kind.memory and (kind.scale or measure == "state_floats")
    ]
    experiments = {}
    for name in chosen:
        own = {} if name == config.learner.name else {"learner.name": name}
        try:
            experiments[name] = fit(vary(config, own), measure, budget)
        except ConfigError as error:
            if names:
                raise
            console.print(f"left out: {error}", soft_wrap=True)
    return show_costs(f"{measure} of {amount(budget)}", experiments)


def show_costs(title: str, experiments: Mapping[str, ExperimentConfig]) -> dict[str, Any]:
    """A line an experiment: its learner's fields, and what it costs."""
    costs = {label: cost_of(experiment) for label, experiment in experiments.items()}
    fields = {
        label: experiment.learner.model_dump(mode="json", exclude_defaults=True)
        for label, experiment in experiments.items()
    }
    table(
        title,
        ["experiment", "learner", *SIZES, "training\nFLOPs"],
        [
            [
                label, settings(fields[label]) or "by default",
                *size_cells(dataclasses.asdict(cost)),
                amount(3.0 * cost.episode_flops * experiments[label].train.steps * experiments[label].train.batch),
            ]
            for label, cost in costs.items()
        ],
    )  # fmt: skip
    return {
        label: fields[label] | {"name": experiments[label].learner.name} | dataclasses.asdict(cost)
        for label, cost in costs.items()
    }
