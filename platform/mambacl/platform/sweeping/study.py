"""The study of a sweep: kept in Optuna's RDB storage, which optuna-dashboard opens."""

from pathlib import Path

import optuna

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
