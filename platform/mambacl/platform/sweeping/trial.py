"""A trial of a sweep: a Ray Tune function that trains in the trial's own folder, with Ray Train or in its own process."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.actor import ActorHandle
from ray.tune.integration.ray_train import TuneReportCallback

from mambacl.platform.config import ExperimentConfig, ResourcesConfig
from mambacl.platform.overrides import vary
from mambacl.platform.places import KIND
from mambacl.platform.training import checkpoint, failure
from mambacl.platform.training.failure import TrainingFailed
from mambacl.platform.training.ray_worker import train_alone
from mambacl.platform.training.run import train, with_ray_train
from mambacl.tasks.config import parse


def trial_name(number: int) -> str:
    """The name of a trial's folder, by its number in the study."""
    return f"trial-{number:04d}"


def trial_folder(sweep: Path, number: int) -> Path:
    """The folder of a trial: one that is handed out again goes on in it."""
    return sweep / "trials" / trial_name(number)


def trial_resources(need: ResourcesConfig) -> dict[str, float]:
    """What Ray Tune reserves for a trial's process."""
    if need.trainer == "inline":
        kind = {KIND + need.accelerator: 0.001} if need.accelerator else {}
        return {"CPU": need.cpus, "GPU": need.gpus, **kind}
    # The workers ask for the CPUs. A trial that asked for a share of one would take a whole worker's place.
    return {"CPU": 0, "memory": 1}


def run_trial(suggestion: dict[str, Any], base: dict[str, Any], sweep: str, board: ActorHandle) -> None:
    """suggestion: {"number", "values"}; base: the experiment without the searched values.

    A trial that can never be finished returns like any other, and says so in its folder: what Ray Tune sees as an error is a
    process that ended, and is started again.
    """
    config = vary(parse(ExperimentConfig, base), suggestion["values"])
    run = trial_folder(Path(sweep), suggestion["number"])
    last = checkpoint.newest(run)
    if last and last.progress.stopped:  # its driver died after the last step, before the study heard of it
        tune.report(last.facts)
        return
    if failure.read(run):
        return
    inline = config.resources.trainer == "inline"
    attempt = (lambda job: train_alone(job, tune.report)) if inline else with_ray_train([TuneReportCallback()])
    try:
        train(config, run, board, attempt)
    except TrainingFailed:
        return
