"""The search of a study: every learner gets as many trials on meta-val, and is then trained with what they found."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from mambacl.platform.config import ExperimentConfig, StorageConfig, SweepConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.overrides import flatten, vary
from mambacl.platform.studying.config import Entry, SearchConfig
from mambacl.platform.sweeping.command import best_trials, claim, search, show_trials
from mambacl.platform.training import checkpoint


def search_all(
    entries: Sequence[Entry],
    wanted: SearchConfig,
    folder: Path,
    storage: StorageConfig,
    delivery: Delivery,
    board: ActorHandle,
) -> dict[str, dict[str, Any]]:
    """The best values of the searched fields for each group of entries; a search that is over is not done again."""
    found = {}
    for entry in {entry.group: entry for entry in reversed(entries)}.values():
        config, place = search_config(entry, wanted, storage), folder / "search" / entry.group
        claim(config, place)
        study = search(config, place, delivery, board)
        show_trials(study, config, place)
        best = checkpoint.best(best_trials(config, place)[0]).config
        values = flatten(best.model_dump(mode="json"))
        found[entry.group] = {field: values[field] for field in wanted.fields if field in values}
    return found


def search_config(entry: Entry, wanted: SearchConfig, storage: StorageConfig) -> ExperimentConfig:
    """The sweep of an entry's group."""
    steps = {} if wanted.steps is None else {"train.steps": wanted.steps}
    return vary(entry.experiment, steps).model_copy(
        update={
            "name": entry.model_name,
            "search": wanted.fields,
            "storage": storage,
            "sweep": SweepConfig(trials=wanted.trials, seed=entry.seed, grace=wanted.grace, compare={}),
        }
    )


def with_values(entry: Entry, values: Mapping[str, dict[str, Any]]) -> Entry:
    """The entry as its group's search found it best."""
    return dataclasses.replace(entry, experiment=vary(entry.experiment, values.get(entry.group, {})))
