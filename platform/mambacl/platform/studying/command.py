"""One study from start to end: train every experiment, evaluate all together, table and figures."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from mambacl.learners.registry import CONFIGS
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.console import SIZES, amount, console, size_cells, table
from mambacl.platform.cost import cost_of
from mambacl.platform.data.prepare import prepare
from mambacl.platform.driver import Delivery, attend
from mambacl.platform.evaluation.command import evaluate
from mambacl.platform.overrides import vary
from mambacl.platform.places import places_for
from mambacl.platform.session import session
from mambacl.platform.snapshot import keep
from mambacl.platform.studying import report
from mambacl.platform.studying.config import Measure, StudyConfig, experiments_of
from mambacl.platform.studying.lineup import fit
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.store import Store
from mambacl.platform.training.bookkeeping import close_record, common_tags, open_record
from mambacl.platform.training.command import check
from mambacl.platform.training.run import TrainingFailed, train
from mambacl.tasks.config import ConfigError

logger = logging.getLogger("mambacl")

SNAPSHOT = "study.json"
CHANGEABLE = ("resources.", "storage.", "concurrent", "episodes", "references", "features")
"""Fields of a study, and of its experiments, that it may be continued with other values of."""


def study(
    config: StudyConfig, changes: Mapping[str, Any], storage: StorageConfig, address: str | None
) -> dict[str, Any]:
    """Run or finish the study and return what `mambacl study --json` prints. What is trained is not trained again.

    changes: fields that are the same in all experiments, by dotted name, beside those of the study.
    """
    experiments = line_up(config, changes, address)
    for label, experiment in experiments.items():
        try:
            check(experiment)
        except ConfigError as error:
            raise ConfigError(f"experiments.{label}: {error}") from None
    folder = study_folder(config, storage)
    claim(config, experiments, folder)
    runs = {label: folder / label for label in experiments}
    delivery = Delivery(Store(storage))
    delivery.add(folder)
    with session(address):
        failed = train_all(
            config, {runs[label]: experiment for label, experiment in experiments.items()}, folder, delivery
        )
        trained = {label: run for label, run in runs.items() if run not in failed}
        if not trained:
            raise TrainingFailed(f"no experiment of the study could be trained: {'; '.join(failed.values())}")
        summary = evaluate(
            trained, "standard", config.episodes, storage, references=config.references, features=config.features
        )
    files = report.write(folder, summary, trained)
    records.update(folder, status="FINISHED")
    delivery.finish()
    for file in files:
        console.print(file, soft_wrap=True)
    missing = {run.name: reason for run, reason in failed.items()}
    for label, reason in missing.items():
        logger.warning("%s is missing: %s", label, reason)
    return {"name": config.name, "folder": str(folder), "evaluation": summary, "failed": missing, "files": files}


def study_folder(config: StudyConfig, storage: StorageConfig) -> Path:
    """Where a study keeps its runs."""
    return Path(storage.root).resolve() / "studies" / config.name


def line_up(config: StudyConfig, changes: Mapping[str, Any], address: str | None = None) -> dict[str, ExperimentConfig]:
    """The experiments of a study by label, each learner at the size that the study asks for."""
    experiments = experiments_of(config, changes)
    prepare([experiment.task for experiment in experiments.values()], address)
    if config.match is None:
        return experiments
    fitted = {}
    for label, experiment in experiments.items():
        try:
            fitted[label] = fit(experiment, config.match.measure, config.match.budget)
        except ConfigError as error:
            raise ConfigError(f"experiments.{label}: {error}") from None
    return fitted


def dry_run(config: StudyConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Show what each experiment costs; nothing is trained."""
    return show_costs(f"study {config.name}", line_up(config, changes))


def matched(config: ExperimentConfig, measure: Measure, budget: float | None, names: Sequence[str]) -> dict[str, Any]:
    """Show learners resized to a budget on the experiment's task, by default to what its own learner has.

    names: by default all learners that have a size. Raises ConfigError for one that cannot be brought to the budget.
    """
    budget = budget or float(getattr(cost_of(config), measure))
    chosen = names or [
        name for name, kind in CONFIGS.items() if kind.memory and (kind.scale or measure == "state_floats")
    ]
    experiments = {}
    for name in chosen:
        own = {} if name == config.learner.name else {"learner.name": name}
        try:
            experiments[name] = fit(vary(config, own), measure, budget)
        except ConfigError as error:
            if names:
                raise
            console.print(f"left out: {error}", soft_wrap=True)
    return show_costs(f"{measure} of {amount(budget)}", experiments)


def show_costs(title: str, experiments: Mapping[str, ExperimentConfig]) -> dict[str, Any]:
    """A line an experiment: its learner's fields, and what it costs."""
    costs = {label: cost_of(experiment) for label, experiment in experiments.items()}
    fields = {
        label: experiment.learner.model_dump(mode="json", exclude_defaults=True)
        for label, experiment in experiments.items()
    }
    table(
        title,
        ["experiment", "learner", *SIZES, "training\nFLOPs"],
        [
            [
                label, " ".join(f"{name}={value}" for name, value in fields[label].items()) or "by default",
                *size_cells(dataclasses.asdict(cost)),
                amount(3.0 * cost.episode_flops * experiments[label].train.steps * experiments[label].train.batch),
            ]
            for label, cost in costs.items()
        ],
    )  # fmt: skip
    return {
        label: fields[label] | {"name": experiments[label].learner.name} | dataclasses.asdict(cost)
        for label, cost in costs.items()
    }


def claim(config: StudyConfig, experiments: Mapping[str, ExperimentConfig], folder: Path) -> None:
    """Keep the study in its folder, and open its record. Raises ConfigError where another study has this name."""
    for label, experiment in experiments.items():
        keep(
            folder / label / SNAPSHOT,
            experiment.model_dump(mode="json"),
            f"{label} of a study {config.name!r}",
            CHANGEABLE,
        )
    first = next(iter(experiments.values()))
    record = Record(
        kind="study",
        name=f"study {config.name}",
        experiment=config.name,
        params={"experiments": ", ".join(experiments), "episodes": config.episodes},
        tags=common_tags(first),
    )
    records.reopen(folder, record)


def train_all(
    config: StudyConfig, runs: Mapping[Path, ExperimentConfig], folder: Path, delivery: Delivery
) -> dict[Path, str]:
    """Train every run, several at a time; returns why some could not be, by folder. Ctrl-C ends them all with checkpoints."""
    board = open_board()
    most = min(places_for(experiment.resources) for experiment in runs.values())
    pool = ThreadPoolExecutor(min(most, config.concurrent or most), "train")
    failed: dict[Path, str] = {}
    for run, experiment in runs.items():
        open_record(experiment, run, folder)
        delivery.add(run)

    def work() -> None:
        for waiting in [pool.submit(_train, experiment, run, board, failed) for run, experiment in runs.items()]:
            waiting.result()

    def stop() -> None:
        pool.shutdown(wait=False, cancel_futures=True)

    try:
        attend(work, board, delivery, stop)
    except BaseException as error:
        stop()
        for run in [folder, *runs]:
            if (record := records.read(run)) and record.status == "RUNNING":
                close_record(run, error)
        delivery.finish()
        raise
    return failed


def _train(experiment: ExperimentConfig, run: Path, board: ActorHandle, failed: dict[Path, str]) -> None:
    """Train one run. One that fails, such as by diverging, does not end the study."""
    try:
        train(experiment, run, board)
    except Exception as error:
        close_record(run, error)
        failed[run] = str(error).strip().splitlines()[-1]
    else:
        close_record(run, None)
