"""One sweep from start to end: search, best model, promotion, comparison, evaluation."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune

from mambacl.learners.objective import higher_is_better
from mambacl.platform.alone import alone_in
from mambacl.platform.board import open_board
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.console import console, table
from mambacl.platform.data.prepare import prepare
from mambacl.platform.driver import Delivery, attend
from mambacl.platform.evaluation.command import evaluate
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.platform.places import places_for
from mambacl.platform.session import session
from mambacl.platform.snapshot import keep
from mambacl.platform.sweeping.book import Book
from mambacl.platform.sweeping.card import model_card
from mambacl.platform.sweeping.plan import rivals_of, sweep_folder
from mambacl.platform.sweeping.promotion import promote
from mambacl.platform.sweeping.scheduler import open_scheduler
from mambacl.platform.sweeping.search import StudySearch
from mambacl.platform.sweeping.study import open_study, shown_uri
from mambacl.platform.sweeping.trial import run_trial, trial_folder, trial_name, trial_resources
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.registry import CHAMPION, register
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint, failure
from mambacl.platform.training.bookkeeping import common_tags, open_record, params_of
from mambacl.platform.training.command import attend_training, check
from mambacl.platform.training.failure import TrainingFailed

logger = logging.getLogger("mambacl")

SNAPSHOT = "experiment.json"
CHANGEABLE = ("sweep.trials", "sweep.concurrent", "resources.", "storage.")
"""Fields that a sweep may be resumed with other values of: they change no trial."""

COMPARED = 10
"""Trials on the page that sets the best of them side by side."""


def sweep(config: ExperimentConfig, address: str | None) -> dict[str, Any]:
    """Run or finish the sweep and return what `mambacl sweep --json` prints."""
    rivals, folder = rivals_of(config), sweep_folder(config)
    with alone_in(folder):
        return _sweep(config, rivals, folder, address)


def _sweep(
    config: ExperimentConfig, rivals: Mapping[str, ExperimentConfig], folder: Path, address: str | None
) -> dict[str, Any]:
    phases = Phases()
    with phases("data"):
        prepare([config.task, *(rival.task for rival in rivals.values())], address)
    with phases("check"):
        check(config)
        for rival in rivals.values():
            check(rival)
        claim(config, folder)
    delivery = Delivery(Store(config.storage))
    with session(address):
        board = open_board()
        with phases("search"):
            study = search(config, folder, delivery, board)
        show_trials(study, config, folder)
        with phases("register and promote"):
            best, *others = best_trials(config, folder)
            version, promoted = register_best(config, best, delivery)
        with phases("comparison"):
            runs = compare(rivals, folder, delivery, board)
        delivery.finish()
        comparison = delivery.store.comparison([best, *others[: COMPARED - 1], *runs])
        with phases("evaluation"):
            models = [f"models:/{config.name}@{CHAMPION}", *map(str, runs)]
            summary = evaluate(models, Standard(), config.storage)
    show_end(config, folder, delivery.store.pages, comparison, version, promoted, phases)
    return {
        "name": config.name,
        "best": best.name,
        "version": version,
        "champion": promoted,
        "trials": [{"number": t.number, "state": t.state.name, "values": t.params} for t in study.trials],
        "evaluation": summary,
        "seconds": phases.seconds,
    }


class Phases:
    """Wall time of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)


def claim(config: ExperimentConfig, folder: Path) -> None:
    """Keep the sweep's config in its folder. Raises ConfigError where another config has this name."""
    keep(folder / SNAPSHOT, config.model_dump(mode="json"), f"a sweep {config.name!r}", CHANGEABLE)


def record_sweep(config: ExperimentConfig, folder: Path) -> None:
    """Open the sweep's record."""
    record = Record(
        kind="sweep",
        name=f"sweep {config.name}",
        experiment=config.name,
        params=params_of(config),
        tags=common_tags(config),
    )
    records.reopen(folder, record)


def search(config: ExperimentConfig, folder: Path, delivery: Delivery, board: Any) -> optuna.Study:
    """Run trials until the study has as many as asked for."""
    modes = {"score": "max" if maximised(config) else "min", "state_floats": "min"}
    modes = {name: modes[name] for name in config.sweep.objectives}
    study = open_study(config, modes)
    places = places_for(config.resources)
    searcher = StudySearch(config, study, modes, lambda number: failure.read(trial_folder(folder, number)) is not None)
    book = Book(config, folder, delivery)
    record_sweep(config, folder)
    for run in [folder, *folder.glob("trials/*")]:  # a driver that was killed may have left some undelivered
        if records.read(run):
            delivery.add(run)

    def prune(number: int) -> None:
        ray.get(board.prune.remote(trial_name(number)))

    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(
                run_trial, base=config.model_dump(mode="json", exclude_unset=True), sweep=str(folder), board=board
            ),
            trial_resources(config.resources),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=open_scheduler(config, study, modes["score"], prune),
            num_samples=-1,
            max_concurrent_trials=min(places, config.sweep.concurrent or places),
            reuse_actors=config.resources.trainer == "inline",
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{time.time_ns():x}",
            storage_path=str(folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=-1),  # the book counts
            verbose=0,
            callbacks=[book],
        ),
    )

    def stop() -> None:
        searcher.stopping = book.stopping = True

    try:
        attend(tuner.fit, board, delivery, stop)
    except BaseException:
        records.update(folder, status="KILLED")
        delivery.finish()
        raise
    records.update(folder, status="FINISHED")
    return study


def maximised(config: ExperimentConfig) -> bool:
    """Whether the score is to be high."""
    return higher_is_better(config.task.output)


def best_trials(config: ExperimentConfig, folder: Path) -> list[Path]:
    """Folders of trials, those with better scores first. Raises TrainingFailed where no trial has one."""
    sign = 1 if maximised(config) else -1
    scored = [
        (sign * last.progress.best_score, run)
        for run in sorted((folder / "trials").iterdir())
        if (last := checkpoint.newest(run)) and last.progress.best_score is not None
    ]
    if not scored:
        raise TrainingFailed("no trial has a score; `mambacl list runs` shows why")
    return [run for _, run in sorted(scored, key=lambda pair: pair[0], reverse=True)]


def register_best(config: ExperimentConfig, best: Path, delivery: Delivery) -> tuple[int, bool]:
    """Make the best trial's best checkpoint a model version and promote it if it is better; not retrained."""
    delivery.finish()
    record = records.read(best)
    if record is None or record.run_id is None:
        raise ConnectionError(
            f"MLflow at {delivery.store.uri} is away; `mambacl resume {config.name}` registers the model later"
        )
    chosen = checkpoint.best(best)
    tags = {"mambacl.learner": config.learner.name, "meta_val/score": f"{chosen.progress.best_score:.4f}"}
    version = register(delivery.store, chosen, record.run_id, model_card(chosen), tags)
    return version, promote(delivery.store, config, version)


def compare(rivals: Mapping[str, ExperimentConfig], folder: Path, delivery: Delivery, board: Any) -> list[Path]:
    """Run the experiments that stand beside the champion, once each; returns their folders."""
    runs = []
    for name, rival in rivals.items():
        run = folder / "compare" / name
        open_record(rival, run, folder, {"mambacl.role": "comparison"})
        delivery.add(run)
        attend_training(rival, run, board, delivery)
        runs.append(run)
    return runs


def show_trials(study: optuna.Study, config: ExperimentConfig, folder: Path) -> None:
    """A line a trial, best first; with two objectives, which trials stand on the Pareto front."""
    front = {t.number for t in study.best_trials} if len(config.sweep.objectives) > 1 else set()
    rows = []
    for trial in study.trials:
        last = checkpoint.newest(trial_folder(folder, trial.number))
        score = last.progress.best_score if last else None
        rows.append(
            [
                trial.number,
                *(_short(trial.params.get(name)) for name in config.search),
                trial.state.name.lower(),
                last.progress.step if last else 0,
                score if score is not None else "",
                *(["*" if trial.number in front else ""] if front else []),
            ]
        )
    rows.sort(
        key=lambda row: -row[-2 if front else -1] if isinstance(row[-2 if front else -1], float) else 1e9, reverse=False
    )
    columns = ["trial", *config.search, "state", "steps", "meta-val score", *(["Pareto front"] if front else [])]
    table(f"sweep {config.name}", columns, rows)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def show_end(
    config: ExperimentConfig, folder: Path, pages: str, comparison: str, version: int, promoted: bool, phases: Phases
) -> None:
    """Where everything is, and how long each phase took."""
    role = "champion" if promoted else "candidate; the champion stays"
    lines = {
        "model": f"models:/{config.name}/{version} ({role})",
        "trials": folder / "trials",
        "study": f"optuna-dashboard {shown_uri(config.storage)}",
        "MLflow UI": pages,
        "best runs": comparison,
        "time": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in phases.seconds.items()),
    }
    for what, text in lines.items():
        console.print(f"{what:12}{text}", soft_wrap=True)
