"""One study from start to end: search, train every entry, register, ask all suites, report. Nothing that is done is done again."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mambacl.learners.objective import higher_is_better
from mambacl.learners.registry import build as build_learner
from mambacl.platform.alone import alone_in
from mambacl.platform.board import open_board
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import console
from mambacl.platform.data.prepare import prepare
from mambacl.platform.driver import Delivery
from mambacl.platform.evaluation.command import SPLIT, Asked, evaluate
from mambacl.platform.evaluation.contestant import built_family
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.platform.evaluation.suites.suite import needs
from mambacl.platform.places import places_for
from mambacl.platform.session import session
from mambacl.platform.snapshot import keep
from mambacl.platform.studying.config import Entry, StudyConfig, entries_of, study_folder
from mambacl.platform.studying.devices import Device
from mambacl.platform.studying.finished import RESULTS, SNAPSHOT, on_family, read
from mambacl.platform.studying.lineup import fit
from mambacl.platform.studying.plan import Planned, planned, show
from mambacl.platform.studying.provenance import made_with
from mambacl.platform.studying.report import write
from mambacl.platform.studying.searching import search_all, with_values
from mambacl.platform.studying.training import train_all
from mambacl.platform.sweeping.card import model_card
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.registry import CANDIDATE, register
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import common_tags
from mambacl.platform.training.command import check
from mambacl.platform.training.failure import TrainingFailed
from mambacl.tasks.config import ConfigError
from mambacl.tasks.family import Family
from mambacl.tasks.images_config import DatasetConfig
from mambacl.tasks.registry import TaskConfig
from mambacl.tasks.standins import standin

logger = logging.getLogger("mambacl")

CHANGEABLE = ("resources.", "storage.", "concurrent", "episodes", "references", "features", "suites", "question")
"""Fields of a study, and of its experiments, that it may be continued with other values of."""


def study(
    config: StudyConfig,
    changes: Mapping[str, Any],
    storage: StorageConfig,
    data: str | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Run or finish the study and return what `mambacl study --json` prints.

    changes: fields that are the same in all experiments, by dotted name, beside those of the study. data: folder that
    relative paths of data start from. Raises ConfigError before anything is started for what can never work.
    """
    entries = entries_of(config, changes, data)
    prepare([entry.experiment.task for entry in entries], address)
    entries = line_up(config, entries, built_family)
    for entry in entries:
        try:
            check(entry.experiment)
        except ConfigError as error:
            raise ConfigError(f"experiments.{entry.group}: {error}") from None
    not_run = unserved(config, entries)
    check_transfer(config, entries)
    folder = study_folder(config, storage)
    with alone_in(folder):
        return _study(config, entries, not_run, folder, storage, address)


def _study(
    config: StudyConfig,
    entries: list[Entry],
    not_run: Mapping[str, str],
    folder: Path,
    storage: StorageConfig,
    address: str | None,
) -> dict[str, Any]:
    claim(config, entries, folder)
    delivery = Delivery(Store(storage))
    with session(address):
        for entry in entries:
            places_for(entry.experiment.resources)
        record_study(config, entries, folder)
        delivery.add(folder)
        board = open_board()
        if config.search:
            values = search_all(entries, config.search, folder, storage, delivery, board)
            entries = [with_values(entry, values) for entry in entries]
        runs = {folder / entry.path: entry.experiment for entry in entries}
        failed = train_all(runs, folder, delivery, board, config.concurrent)
        trained = [entry for entry in entries if folder / entry.path not in failed]
        if not trained:
            raise TrainingFailed(f"no experiment of the study could be trained: {'; '.join(failed.values())}")
        delivery.finish()
        register_all(trained, folder, delivery.store)
        results = ask_all(config, trained, folder, storage, not_run)
        tools = made_with()
    missing = {str(run.relative_to(folder)): reason for run, reason in failed.items()}
    for label, reason in missing.items():
        logger.warning("%s is missing: %s", label, reason)
    summary = {
        "name": config.name,
        "question": config.question,
        "folder": str(folder),
        "evaluation": results,
        "failed": missing,
        "not_run": not_run,
        "made_with": tools,
    }
    (folder / RESULTS).write_text(json.dumps(summary, indent=1))
    files = write(read(folder), storage)
    records.update(folder, status="FINISHED")
    delivery.add(folder)
    delivery.finish()
    for file in files:
        console.print(file, soft_wrap=True)
    return summary | {"files": files}


def line_up(config: StudyConfig, entries: Sequence[Entry], family_of: Callable[[TaskConfig], Family]) -> list[Entry]:
    """The entries of a study, each learner at the size that the study asks for."""
    if config.match is None:
        return list(entries)
    fitted = []
    for entry in entries:
        family = family_of(entry.experiment.task)
        try:
            experiment = fit(entry.experiment, config.match.measure, config.match.budget, family)
        except ConfigError as error:
            raise ConfigError(f"experiments.{entry.group}: {error}") from None
        fitted.append(dataclasses.replace(entry, experiment=experiment))
    return fitted


def dry_run(
    config: StudyConfig, changes: Mapping[str, Any], data: str | None = None, device: Device | None = None
) -> dict[str, Any]:
    """Show what each experiment answers and costs; nothing is trained. Public data sets need not be there: stand-ins have as many
    classes and images. By default, the device is an H100 where any experiment asks for GPUs."""
    return show(config, *planned_on(config, changes, data, device))


def planned_on(
    config: StudyConfig, changes: Mapping[str, Any], data: str | None = None, device: Device | None = None
) -> tuple[list[Planned], Device]:
    """The plan of a study, and the name of the device that it is for. Raises ConfigError where it could not start."""
    entries = line_up(config, entries_of(config, changes, data), stand_in)
    unserved(config, entries, stand_in)
    check_transfer(config, entries, stand_in)
    asks_gpus = any(entry.experiment.resources.gpus for entry in entries)
    return planned(config, entries, stand_in), device or ("h100" if asks_gpus else "cpu")


def stand_in(task: TaskConfig) -> Family:
    """The family of a task, or for a public data set one with as many classes and images, which needs no data."""
    if isinstance(task, DatasetConfig):
        return standin(task)  # type: ignore[arg-type]  # configs are frozen, and so they have hashes
    return built_family(task)


def families_of(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries by family."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.family, []).append(entry)
    return found


def unserved(
    config: StudyConfig, entries: Sequence[Entry], family_of: Callable[[TaskConfig], Family] = built_family
) -> dict[str, str]:
    """Why a family, or the learners trained on it, cannot serve a suite, by FAMILY/SUITE. Raises ConfigError for a suite that
    none can serve."""
    reasons: dict[str, str] = {}
    families = families_of(entries)
    for suite in config.asked:
        mine = {}
        for family, members in families.items():
            asked = family_of(members[0].experiment.task)
            try:
                suite.points(asked, SPLIT)
                if not any(suite.takes(build_learner(member.experiment.learner, asked.spec)) for member in members):
                    raise needs(suite.name, suite.demand)
            except ConfigError as error:
                mine[f"{family}/{suite.name}".lstrip("/")] = str(error)
        if len(mine) == len(families):
            raise ConfigError(next(iter(mine.values())))
        reasons |= mine
    return reasons


def check_transfer(
    config: StudyConfig, entries: Sequence[Entry], family_of: Callable[[TaskConfig], Family] = built_family
) -> None:
    """Raise ConfigError where models of one family cannot be asked about another, as they are to be."""
    if not config.transfer:
        return
    (first, own), *others = (
        (family, family_of(members[0].experiment.task).spec) for family, members in families_of(entries).items()
    )
    if not others:
        raise ConfigError("transfer: needs more than one of families")
    for family, spec in others:
        if fact := own.unlike(spec):
            raise ConfigError(
                f"transfer: {first} has {fact} {getattr(own, fact)}, {family} has {getattr(spec, fact)}; "
                "they have to be the same"
            )


def claim(config: StudyConfig, entries: Sequence[Entry], folder: Path) -> None:
    """Keep the study in its folder. Raises ConfigError where another study has this name."""
    for entry in entries:
        keep(
            folder / entry.path / SNAPSHOT,
            entry.experiment.model_dump(mode="json"),
            f"{entry.group} of a study {config.name!r}",
            CHANGEABLE,
            "--fork NAME starts another",
        )
    (folder / SNAPSHOT).write_text(config.model_dump_json(indent=1))


def record_study(config: StudyConfig, entries: Sequence[Entry], folder: Path) -> None:
    """Open the study's record."""
    record = Record(
        kind="study",
        name=f"study {config.name}",
        experiment=config.name,
        params={
            "experiments": ", ".join(dict.fromkeys(entry.group for entry in entries)),
            "seeds": ", ".join(map(str, config.seeds)),
            "episodes": config.episodes,
        },
        tags=common_tags(entries[0].experiment),
    )
    records.reopen(folder, record)


def register_all(trained: Sequence[Entry], folder: Path, store: Store) -> None:
    """Make the seed of each learner with the best meta-val score a version of a model named STUDY.FAMILY.LEARNER."""
    best: dict[str, Entry] = {}
    for entry in trained:
        if checkpoint.best(folder / entry.path).progress.step == 0:
            continue  # nothing was trained
        rival = best.get(entry.group)
        if rival is None or _is_better(folder / entry.path, folder / rival.path):
            best[entry.group] = entry
    for entry in best.values():
        chosen, record = checkpoint.best(folder / entry.path), records.read(folder / entry.path)
        if record is None or record.run_id is None:
            logger.warning("%s is not registered: MLflow is away; the same command does it later", entry.group)
            continue
        tags = {"mambacl.learner": chosen.config.learner.name, "meta_val/score": f"{chosen.progress.best_score:.4f}"}
        card = model_card(chosen, f"models:/{entry.model_name}@{CANDIDATE}")
        register(store, chosen, record.run_id, card, tags, entry.model_name)


def _is_better(run: Path, other: Path) -> bool:
    ours, theirs = (checkpoint.best(folder).progress for folder in (run, other))
    assert ours.best_score is not None
    assert theirs.best_score is not None
    sign = 1 if higher_is_better(ours.spec.output) else -1
    return sign * ours.best_score > sign * theirs.best_score


def ask_all(
    config: StudyConfig, trained: Sequence[Entry], folder: Path, storage: StorageConfig, not_run: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What the trained models answer: summaries by family and suite, and under `on FAMILY` what they answer about another one."""
    asked = Asked(config.episodes, config.references, config.features)
    found: dict[str, dict[str, Any]] = {}
    families = families_of(trained)
    for family, entries in families.items():
        models: dict[str, list[Path]] = {}
        for entry in entries:
            models.setdefault(entry.label, []).append(folder / entry.path)
        found[family] = {}
        for suite in config.asked:
            if f"{family}/{suite.name}".lstrip("/") not in not_run:
                results = folder / "results" / family / suite.name
                found[family][suite.name] = evaluate(models, suite, storage, asked, folder=results)
        for other in families if config.transfer else ():
            if other != family:
                elsewhere = dataclasses.replace(asked, on=families[other][0].experiment.task)
                results = folder / "results" / family / on_family(other)
                found[family][on_family(other)] = evaluate(models, Standard(), storage, elsewhere, folder=results)
    return found
