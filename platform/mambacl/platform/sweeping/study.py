"""The study of a sweep: kept in Optuna's RDB storage, which optuna-dashboard opens."""

from pathlib import Path
from types import SimpleNamespace

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler

from mambacl.platform.config import ExperimentConfig, StorageConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_uri(storage: StorageConfig) -> str:
    """Where studies are kept."""
    return storage.study_uri or f"sqlite:///{Path(storage.root).resolve()}/optuna.db"


def open_study(config: ExperimentConfig, modes: dict[str, str]) -> optuna.Study:
    """The sweep's study, made where there is none yet; its sampler is seeded."""
    Path(config.storage.root).mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=config.name,
        storage=study_uri(config.storage),
        directions=["maximize" if mode == "max" else "minimize" for mode in modes.values()],
        load_if_exists=True,
    )
    # With one and the same seed a resumed sweep would be given its first suggestions again.
    study.sampler = optuna.samplers.TPESampler(seed=config.sweep.seed + len(study.get_trials(deepcopy=False)))
    return study


def open_scheduler(config: ExperimentConfig, study: optuna.Study, mode: str) -> ASHAScheduler:
    """ASHA over training steps, with the rungs as finished trials of the study have left them."""
    steps = config.train.steps
    scheduler = ASHAScheduler(
        time_attr="step",
        metric="score",
        mode=mode,
        max_t=steps,
        grace_period=min(steps, config.sweep.grace or max(1, steps // 4)),
        reduction_factor=config.sweep.reduction,
        stop_last_trials=False,
    )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        stub = SimpleNamespace(trial_id=f"study-{trial.number}")
        scheduler.on_trial_add(None, stub)  # type: ignore[arg-type]
        for step, score in sorted(trial.intermediate_values.items()):
            scheduler.on_trial_result(None, stub, {"step": step, "score": score})  # type: ignore[arg-type]
    return scheduler
