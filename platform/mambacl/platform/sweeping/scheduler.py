"""Early stopping: ASHA over training steps, by asking runs to end rather than killing them.

Ray Tune ends a trial by killing its process. The Ray Train run inside then leaves its placement group behind, which keeps its
CPUs until the cluster ends; Train's own cleaner finds it through Ray's dashboard alone. Two pruned trials were enough to
stop a sweep on two CPUs for ever.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.sweeping.plan import first_rung


class AskingAsha(ASHAScheduler):
    """Asynchronous successive halving (Li et al., 2018) whose decision to stop is told to the run, by its number in the study."""

    def __init__(self, prune: Callable[[int], None], **options: Any) -> None:
        super().__init__(**options)
        self.prune = prune

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and not result["finished"]:
            self.prune(trial.config["number"])
        return TrialScheduler.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler to a file that nobody reads; the study holds what is needed."""
        return {}


def open_scheduler(
    config: ExperimentConfig, study: optuna.Study, mode: str, prune: Callable[[int], None]
) -> AskingAsha:
    """The scheduler of a sweep, with the rungs as finished trials of the study have left them."""
    scheduler = AskingAsha(
        prune,
        time_attr="step",
        metric="score",
        mode=mode,
        max_t=config.train.steps,
        grace_period=first_rung(config),
        reduction_factor=config.sweep.reduction,
        stop_last_trials=False,
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        stub = SimpleNamespace(trial_id=f"study-{trial.number}")
        scheduler.on_trial_add(None, stub)  # type: ignore[arg-type]
        for step, score in sorted(trial.intermediate_values.items()):
            # Their runs are over, so nothing is to be asked of them.
            facts = {"step": step, "score": score, "finished": True}
            scheduler.on_trial_result(None, stub, facts)  # type: ignore[arg-type]
    return scheduler
