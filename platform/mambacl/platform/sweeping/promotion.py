"""Promotion: the candidate against the champion, on meta-val episodes that no trial used."""

from pathlib import Path

import numpy as np
from mlflow.exceptions import MlflowException

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.console import console
from mambacl.platform.evaluation.cells import cells_of, results
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.statistics import paired_difference
from mambacl.platform.tracking.registry import CHAMPION, Reference, find
from mambacl.platform.tracking.store import Store
from mambacl.platform.training.loop import higher_is_better
from mambacl.tasks.config import ConfigError

FIRST, EPISODES = 2**32, 256
"""Meta-val episodes of promotion: far behind those that trials are scored on."""


def promote(store: Store, config: ExperimentConfig, version: int) -> bool:
    """Move the alias `champion` to this version if it is better on the same episodes, its paired 95 % interval above
    zero; the first version of a model becomes champion. Returns whether it is champion now.

    Raises ConfigError where the champion was trained on another task family: those never compare.
    """
    client, name = store.client, config.name
    try:
        holder = int(client.get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            raise
        client.set_registered_model_alias(name, CHAMPION, str(version))
        return True
    if holder == version:
        return True
    ours, theirs = (find(f"models:/{name}/{number}", config.storage) for number in (version, holder))
    if family_of(ours) != family_of(theirs):
        raise ConfigError(f"name: the champion of {name!r} was trained on another task family; choose another --name")
    found = {
        label: scores(config, label, reference) for label, reference in (("candidate", ours), ("champion", theirs))
    }
    difference = paired_difference(found["candidate"], found["champion"])
    spec = ours.checkpoint.progress.spec
    better = difference.low > 0 if higher_is_better(spec.output) else difference.high < 0
    client.set_model_version_tag(
        name, str(version), "promotion", f"minus version {holder}: {difference} over {EPISODES} episodes"
    )
    if better:
        client.set_registered_model_alias(name, CHAMPION, str(version))
    console.print(
        f"candidate version {version} minus champion version {holder}: {difference}: {'promoted' if better else 'not better'}"
    )
    return better


def family_of(reference: Reference) -> tuple:
    """What two models must share to be compared: data, splits and episode size."""
    task = reference.checkpoint.config.task
    return reference.checkpoint.progress.spec.digest, task.tasks, task.shots, task.queries


def scores(config: ExperimentConfig, label: str, reference: Reference) -> np.ndarray:
    """The model's score on each of promotion's episodes."""
    task = reference.checkpoint.config.task
    contestant = Contestant.of(label, reference.checkpoint)
    point = Point.as_trained(built_family(task), "meta_val")
    cells = cells_of(contestant, task, point, FIRST, EPISODES)
    rows = results(cells, Path(config.storage.root).resolve(), lambda done, all: None)
    return rows.sort_values("episode")["score"].to_numpy()
