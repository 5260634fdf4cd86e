"""The study of a sweep: kept in Optuna's RDB storage, which optuna-dashboard opens."""

import os
from pathlib import Path

import optuna
from sqlalchemy import make_url

from mambacl.platform.config import ExperimentConfig, StorageConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)


VARIABLE = "MAMBACL_STUDY_URI"


def study_uri(storage: StorageConfig) -> str:
    """Where studies are kept."""
    return storage.study_uri or os.environ.get(VARIABLE) or f"sqlite:///{Path(storage.root).resolve()}/optuna.db"


def shown_uri(storage: StorageConfig) -> str:
    """The same for people: without a password."""
    return make_url(study_uri(storage)).render_as_string(hide_password=True)


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
