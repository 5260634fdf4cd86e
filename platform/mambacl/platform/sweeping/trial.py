"""A trial of a sweep: a Ray Tune function that starts a Ray Train run in the trial's own folder."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.actor import ActorHandle
from ray.tune.integration.ray_train import TuneReportCallback

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.overrides import vary
from mambacl.platform.training import checkpoint
from mambacl.platform.training.run import train
from mambacl.tasks.config import parse


def trial_name(number: int) -> str:
    """The name of a trial's folder, by its number in the study."""
    return f"trial-{number:04d}"


def trial_folder(sweep: Path, number: int) -> Path:
    """The folder of a trial: one that is handed out again goes on in it."""
    return sweep / "trials" / trial_name(number)


def run_trial(suggestion: dict[str, Any], base: dict[str, Any], sweep: str, board: ActorHandle) -> None:
    """suggestion: {"number", "values"}; base: the experiment without the searched values."""
    config = vary(parse(ExperimentConfig, base), suggestion["values"])
    run = trial_folder(Path(sweep), suggestion["number"])
    last = checkpoint.newest(run)
    if last and last.progress.stopped:  # its driver died after the last step, before the study heard of it
        tune.report(last.facts)
        return
    train(config, run, board, [TuneReportCallback()])
