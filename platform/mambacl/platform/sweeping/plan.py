"""What a sweep runs and where, known before anything is started."""

from pathlib import Path

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.overrides import vary
from mambacl.tasks.config import ConfigError


def sweep_folder(config: ExperimentConfig) -> Path:
    """Where a sweep keeps its trials."""
    return Path(config.storage.root).resolve() / config.name


def rivals_of(config: ExperimentConfig) -> dict[str, ExperimentConfig]:
    """The experiments that stand beside the champion, by name. Raises ConfigError for what is no sweep."""
    if not config.search:
        raise ConfigError("search: a sweep needs at least one field to search")
    return {name: vary(config, changes) for name, changes in config.sweep.compare.items()}
