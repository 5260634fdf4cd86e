"""The search of a sweep: Optuna suggests to Ray Tune, and a study that a crash left is taken up where it was.

Ray's own OptunaSearch forgets the trials of a crashed driver: they stay RUNNING in the study for ever and count as bad. Here
they are handed out again first, each with its number and values, so that a sweep has exactly as many trials as it was asked for.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from mambacl.platform.config import DimensionConfig, ExperimentConfig
from mambacl.platform.overrides import flatten


class StudySearch(Searcher):
    """Suggests from a persistent study until it has `sweep.trials` trials, unfinished ones of an earlier driver first."""

    def __init__(
        self,
        config: ExperimentConfig,
        study: optuna.Study,
        modes: Mapping[str, str],
        failed: Callable[[int], bool] = lambda number: False,
    ) -> None:
        """modes: what is optimised and how, in order, such as {"score": "max"}; failed: whether the trial of this number can
        never be finished."""
        super().__init__(metric=list(modes), mode=list(modes.values()))  # type: ignore[arg-type]
        self.config, self.study, self.objectives, self.failed = config, study, list(modes), failed
        self.left_over = [trial for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]
        self.trials: dict[str, optuna.Trial] = {}
        self.stopping = False
        """Set when the driver is asked to stop: no more trials, and those that end now stay open for the next driver."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """The trial's number in the study and its values by dotted field name."""
        if self.stopping:
            return Searcher.FINISHED
        if self.left_over:
            trial = optuna.Trial(self.study, self.left_over.pop(0)._trial_id)
        elif len(self.study.get_trials(deepcopy=False)) < self.config.sweep.trials:
            trial = self.study.ask()
        else:
            return Searcher.FINISHED
        self.trials[trial_id] = trial
        return {"number": trial.number, "values": values_of(trial, self.config)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the score of each evaluation in the study; Optuna has no such thing for several objectives."""
        if len(self.objectives) > 1 or self.objectives[0] not in result:
            return
        trial = self.trials[trial_id]
        if result["step"] not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(result[self.objectives[0]], result["step"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """COMPLETE with all steps done, PRUNED when the scheduler stopped it, FAIL where it can never be finished."""
        trial = self.trials.pop(trial_id)
        if self.stopping:
            return
        if error or self.failed(trial.number) or result is None or any(name not in result for name in self.objectives):
            self.study.tell(trial, state=TrialState.FAIL)
        elif result["finished"] or len(self.objectives) > 1:
            self.study.tell(trial, [result[name] for name in self.objectives])
        else:
            self.study.tell(trial, state=TrialState.PRUNED)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher to a file that nobody reads; the study holds it all."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
        open(checkpoint_path, "w").close()


def values_of(trial: optuna.Trial, config: ExperimentConfig) -> dict[str, Any]:
    """Ask the trial for a value of every searched field whose condition holds."""
    fixed = flatten(config.model_dump(mode="json"))
    values: dict[str, Any] = {}
    for name, dimension in config.search.items():
        if all((fixed | values).get(field) == value for field, value in dimension.when.items()):
            values[name] = _suggest(trial, name, dimension)
    return values


def _suggest(trial: optuna.Trial, name: str, dimension: DimensionConfig) -> Any:
    if dimension.log is not None:
        return trial.suggest_float(name, *dimension.log, log=True)
    if dimension.float is not None:
        return trial.suggest_float(name, *dimension.float)
    if dimension.int is not None:
        return trial.suggest_int(name, *dimension.int)
    return trial.suggest_categorical(name, dimension.choice)  # type: ignore[arg-type]
