"""The search of a sweep: Optuna suggests through Ray Tune, and a study that a crash left is taken up where it was.

Ray's OptunaSearch forgets the trials of a crashed driver: they stay RUNNING in the study for ever. Here they are handed out
again, each with its number and values, before new ones are asked for.
"""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from mambacl.platform.config import DimensionConfig, ExperimentConfig

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class ResumableOptunaSearch(OptunaSearch):
    """Suggests from a persistent study until it has `total` trials, unfinished ones of an earlier driver first."""

    def __init__(self, config: ExperimentConfig, storage: optuna.storages.BaseStorage, study_name: str, modes: Mapping[str, str]) -> None:
        """modes: what is optimised, {"score": "max"}, in order."""
        super().__init__(
            space=lambda trial: suggest(trial, config.search),
            metric=list(modes) if len(modes) > 1 else next(iter(modes)),
            mode=list(modes.values()) if len(modes) > 1 else next(iter(modes.values())),
            sampler=optuna.samplers.TPESampler(seed=config.sweep.seed),
            storage=storage,
            study_name=study_name,
        )
        self.total = config.sweep.trials
        self.left_over = [trial for trial in self.study.get_trials(deepcopy=False) if not trial.state.is_finished()]

    @property
    def study(self) -> optuna.Study:
        return self._ot_study  # type: ignore[return-value]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if trial_id not in self._ot_trials:
            if self.left_over:
                frozen = self.left_over.pop(0)
                self._ot_trials[trial_id] = optuna.trial.Trial(self.study, frozen._trial_id)
            elif len(self.study.get_trials(deepcopy=False)) >= self.total:
                return None
            else:
                self._ot_trials[trial_id] = self.study.ask()
        trial = self._ot_trials[trial_id]
        suggest(trial, self._space_of)
        return {"number": trial.number, "changes": dict(trial.params)}


def suggest(trial: optuna.Trial, search: Mapping[str, DimensionConfig]) -> None:
    """Ask the trial for a value of every field whose condition holds."""
    for name, dimension in search.items():
        if all(trial.params.get(field) == value for field, value in dimension.when.items()):
            if dimension.log:
                trial.suggest_float(name, *dimension.log, log=True)
            elif dimension.float:
                trial.suggest_float(name, *dimension.float)
            elif dimension.int:
                trial.suggest_int(name, *dimension.int)
            else:
                trial.suggest_categorical(name, dimension.choice)
