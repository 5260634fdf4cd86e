"""What a sweep runs and where, known before anything is started."""

from pathlib import Path

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.overrides import vary
from mambacl.tasks.config import ConfigError


def sweep_folder(config: ExperimentConfig) -> Path:
    """Where a sweep keeps its trials."""
    return Path(config.storage.root).resolve() / config.name


def first_rung(config: ExperimentConfig) -> int:
    """Steps that every trial may take before it can be stopped early."""
    steps = config.train.steps
    return min(steps, config.sweep.grace or max(1, steps // 4))


def expected_steps(config: ExperimentConfig) -> float:
    """Training steps of all trials together, where at each rung one of `reduction` goes on."""
    steps, rung, share, total = config.train.steps, first_rung(config), 1.0, 0.0
    done = 0
    while done < steps:
        total += share * (min(rung, steps) - done)
        done, rung, share = rung, rung * config.sweep.reduction, share / config.sweep.reduction
    return config.sweep.trials * total


def rivals_of(config: ExperimentConfig) -> dict[str, ExperimentConfig]:
    """The experiments that stand beside the champion, by name. Raises ConfigError for what is no sweep."""
    if not config.search:
        raise ConfigError("search: a sweep needs at least one field to search")
    return {name: vary(config, changes) for name, changes in config.sweep.compare.items()}
