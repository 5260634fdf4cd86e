"""Which of the searched fields mattered, by the trials of each learner's search."""

import math

import optuna
import pandas as pd

from mambacl.platform.config import StorageConfig
from mambacl.platform.overrides import flatten
from mambacl.platform.studying.finished import Finished
from mambacl.platform.sweeping.study import study_uri

COLUMNS = ["family", "learner", "field", "chosen", "importance", "trials", "complete"]


def importances(study: Finished, storage: StorageConfig) -> pd.DataFrame:
    """A row for each searched learner and field, with COLUMNS.

    Importances (PED-ANOVA: what tells the best complete trials from the others) are shares that add up to 1 for each learner;
    they are missing where fewer than two trials are complete or all score the same. No rows where nothing was searched, or
    where the searches are not in this storage.
    """
    rows = []
    kept = set(optuna.get_all_study_names(study_uri(storage))) if study.config.search else set()
    for entry in {e.group: e for e in reversed(study.trained) if e.model_name in kept}.values():
        trials = optuna.load_study(study_name=entry.model_name, storage=study_uri(storage))
        shares = _shares(trials)
        chosen = flatten(study.trained[entry].config.model_dump(mode="json"))
        rows += [
            {
                "family": entry.family,
                "learner": entry.label,
                "field": field,
                "chosen": chosen.get(field),
                "importance": shares.get(field, math.nan),
                "trials": len(trials.trials),
                "complete": len(_complete(trials)),
            }
            for field in study.config.search.fields  # type: ignore[union-attr]  # there are searches
        ]
    return pd.DataFrame(rows[::-1], columns=COLUMNS)


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])


def _shares(study: optuna.Study) -> dict[str, float]:
    if len({tuple(trial.values) for trial in _complete(study)}) < 2:
        return {}
    return optuna.importance.get_param_importances(study)
