"""One evaluation from references to table, figure and record: models and references on the same meta-test episodes."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from rich.progress import Progress

from mambacl.learners.registry import LearnerConfig
from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import SIZES, console, size_cells, table
from mambacl.platform.cost import size_of
from mambacl.platform.data.prepare import prepare
from mambacl.platform.evaluation import figures
from mambacl.platform.evaluation.cells import Cell, cells_of, results
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner, has_encoder
from mambacl.platform.evaluation.statistics import Interval, interval, paired_difference
from mambacl.platform.evaluation.suites import SuiteName, settings
from mambacl.platform.session import session
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.registry import Reference, find
from mambacl.platform.tracking.store import Store
from mambacl.platform.training.loop import higher_is_better
from mambacl.tasks.config import ConfigError, nearest, parse
from mambacl.tasks.registry import TaskConfig

SPLIT = "meta_test"


def evaluate(
    models: Sequence[str] | Mapping[str, Path],
    suite: str,
    episodes: int,
    storage: StorageConfig,
    references: Sequence[Mapping[str, Any]] | None = None,
    features: bool = False,
    task_path: str | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Evaluate models on a suite and show the table; returns what `mambacl evaluate --json` prints.

    models: what names them, or their folders by the names that they have in the table. references: learners without
    meta-training that stand beside them, by default those of the kind of task; features: on the features of each model's
    encoder, too. Raises ConfigError for an unknown suite or model, or for models of different task families, before Ray
    is started.
    """
    if suite not in get_args(SuiteName):
        known = list(get_args(SuiteName))
        raise ConfigError(f"suite: unknown {suite!r}{nearest(suite, known)}; allowed: {', '.join(known)}")
    if not models:
        raise ConfigError("models: none given; name models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID or a folder")
    if episodes < 2:
        raise ConfigError(f"episodes: must be at least 2 for an interval, got {episodes}")
    named = (
        {label: find(str(folder), storage) for label, folder in models.items()}
        if isinstance(models, Mapping)
        else labels([find(model, storage) for model in models])
    )
    found = list(named.values())
    task = common_task(found, task_path, address)
    models_of = [Contestant.of(label, reference.checkpoint) for label, reference in named.items()]
    contestants = [*models_of, *anchors(references, models_of if features else [], task)]
    root = Path(storage.root).resolve()
    cells = [
        cell
        for setting in settings(suite, built_family(task), SPLIT)  # type: ignore[arg-type]
        for contestant in contestants
        for cell in cells_of(contestant, task, vars(setting), SPLIT, 0, episodes)
    ]
    with session(address):
        rows = compute_with_progress(cells, root)
    folder = root / "evaluations" / found[0].checkpoint.sha256[:12] / suite
    summary = summarise(rows, suite, found[0].text, task, contestants)
    summary["files"] = write(folder, rows, suite, summary, task)
    show(summary, task, contestants)
    track(folder, suite, summary, found, storage)
    return summary


def anchors(
    references: Sequence[Mapping[str, Any]] | None, models: Sequence[Contestant], task: TaskConfig
) -> list[Contestant]:
    """The references, on the input and on the features of these models. Raises ConfigError for one that does not fit."""
    spec = built_family(task).spec
    if references is None:
        names = ("nearest_mean",) if spec.output == "classification" else ("ridge", "knn")
        references = [{"name": name} for name in names]
    learners = [parse(LearnerConfig, dict(reference), "references") for reference in references]
    for learner in learners:
        if build_learner(learner, spec).trainable:
            raise ConfigError(f"references: {learner.name!r} needs meta-training; train it and name its model")
    encoding = [model for model in models if has_encoder(built_learner(model, task))]
    return [Contestant.reference(learner, model) for model in [None, *encoding] for learner in learners]


def common_task(found: Sequence[Reference], path: str | None, address: str | None = None) -> TaskConfig:
    """The task family that all models were trained on, with the data at `path` if given."""
    specs = {reference.checkpoint.progress.spec.digest for reference in found}
    if len(specs) > 1:
        raise ConfigError("models: they were trained on different task families and share no episodes")
    task = found[0].checkpoint.config.task
    if path is not None:
        if "path" not in type(task).model_fields:
            raise ConfigError(f"task.path: the task family {task.name!r} has none")
        task = task.model_copy(update={"path": path})
    prepare([task], address)
    if built_family(task).spec.digest not in specs:
        raise ConfigError("task: the data are not those that the model was trained on (digests differ)")
    return task


def labels(found: Sequence[Reference]) -> dict[str, Reference]:
    """A short name for each model, made distinct where needed."""
    named: dict[str, Reference] = {}
    for reference in found:
        label, number = reference.label, 2
        while label in named:
            label, number = f"{reference.label} ({number})", number + 1
        named[label] = reference
    return named


def compute_with_progress(cells: Sequence[Cell], root: Path) -> pd.DataFrame:
    """Rows of all cells, with a progress bar on a terminal and a line else."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=len(cells))
        found = results(cells, root, lambda done, _: progress.update(task, completed=done))
    console.print(f"evaluated {len(cells)} cells, {len(found):,} episodes")
    return found


def summarise(
    rows: pd.DataFrame,
    suite: str,
    model: str,
    task: TaskConfig,
    contestants: Sequence[Contestant],
) -> dict[str, Any]:
    """Scores of the first model at the trained size, of the others and the references beside it, and paired differences."""
    trained = rows.query(f"tasks == {task.tasks} and shots == {task.shots}").sort_values("episode")
    by_label = dict(list(trained.groupby("contestant")))
    scores = {c.label: by_label[c.label]["score"].to_numpy() for c in contestants}
    seen = {c.label: by_label[c.label]["score_seen"].to_numpy() for c in contestants}
    first, *others = contestants

    def entry(contestant: Contestant) -> dict[str, Any]:
        label = contestant.label
        result = as_json(interval(scores[label])) | {"score_seen": interval(seen[label]).score}
        result |= dataclasses.asdict(size_of(built_learner(contestant, task), built_family(task)))
        if label != first.label:
            difference = paired_difference(scores[first.label], scores[label])
            result |= {
                "difference": difference.score,
                "difference_low": difference.low,
                "difference_high": difference.high,
            }
        return result

    return {
        "suite": suite,
        "model": model,
        "split": SPLIT,
        **entry(first),
        "label": first.label,
        "chance": 1 / task.tasks,
        "lower_is_better": not higher_is_better(built_family(task).spec.output),
        "models": {c.label: entry(c) for c in others if c.trained},
        "references": {c.label: entry(c) for c in others if not c.trained},
    }


def as_json(found: Interval) -> dict[str, Any]:
    return {"score": found.score, "low": found.low, "high": found.high, "episodes": found.episodes}


def write(folder: Path, rows: pd.DataFrame, suite: str, summary: dict[str, Any], task: TaskConfig) -> list[str]:
    """Rows as parquet, summary as JSON, figure as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{task.name}, meta-test, {task.tasks} tasks x {task.shots} shots"
    trained = {"tasks": task.tasks, "shots": task.shots}
    drawn = figures.length(rows, trained, title) if suite == "length" else figures.standard(rows, title)
    picture = figures.save(drawn, folder / f"{suite}.png")
    rows.to_parquet(folder / "episodes.parquet")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    return [str(picture), str(folder / "episodes.parquet"), str(folder / "summary.json")]


def show(summary: dict[str, Any], task: TaskConfig, contestants: Sequence[Contestant]) -> None:
    """The table: a line a contestant, the first model first."""
    classes = built_family(task).spec.output == "classification"
    entries = {summary["label"]: summary} | summary["models"] | summary["references"]
    rows = []
    for contestant in contestants:
        entry = entries[contestant.label]
        rows.append(
            [
                contestant.label,
                _shown(entry, "score", "low", "high", classes),
                f"{100 * entry['score_seen']:.1f}" if classes else "",
                _shown(entry, "difference", "difference_low", "difference_high", classes, sign="+"),
                *size_cells(entry),
            ]
        )
    if classes:
        rows.append(["chance", f"{100 * summary['chance']:.1f}", "", "", 0, 0, 0, 0, "0", "0"])
    table(
        f"{SPLIT}, {task.tasks} tasks x {task.shots} shots, {summary['episodes']} episodes, 95 % intervals",
        [
            "learner", "accuracy, %" if classes else "loss", "seen\ncodes", f"{summary['label']}\nminus it",
            *SIZES,
        ],
        rows,
    )  # fmt: skip
    for file in summary["files"]:
        console.print(file, soft_wrap=True)


def _shown(entry: dict[str, Any], score: str, low: str, high: str, classes: bool, sign: str = "") -> str:
    """An entry's figure with its interval, or nothing where it has none: per cent for accuracies, as it is for losses."""
    if score not in entry:
        return ""
    factor, form = (100, ".1f") if classes else (1, ".4f")
    return f"{factor * entry[score]:{sign}{form}} [{factor * entry[low]:{form}}, {factor * entry[high]:{form}}]"


def track(
    folder: Path, suite: str, summary: dict[str, Any], found: Sequence[Reference], storage: StorageConfig
) -> None:
    """Log the evaluation as a run of its own, linked with the model's run and version."""
    first = found[0]
    config = first.checkpoint.config
    metrics = {f"{SPLIT}/{key}": summary[key] for key in ("score", "low", "high", "score_seen")}
    for label, entry in (summary["models"] | summary["references"]).items():
        metrics |= {
            f"{SPLIT}/{label}/{key}": entry[key] for key in ("score", "difference", "difference_low", "difference_high")
        }
    tags = {"mambacl.model": first.text, "mambacl.suite": suite, "mambacl.sha256": first.checkpoint.sha256}
    if first.run_id:
        tags["mambacl.trained_by"] = first.run_id
    folder.mkdir(parents=True, exist_ok=True)
    known = records.read(folder)
    records.write(
        folder,
        Record(
            kind="evaluation",
            name=f"{suite} of {first.label}",
            experiment=config.name,
            tags=tags,
            metrics=metrics,
            params={"suite": suite, "episodes": summary["episodes"]},
            status="FINISHED",
            run_id=known.run_id if known else None,
        ),
    )
    try:
        store = Store(storage)
        run_id = store.deliver(folder).run_id
        if first.name and first.version:
            store.client.set_model_version_tag(first.name, str(first.version), f"evaluation/{suite}", run_id or "")
            store.client.set_model_version_tag(
                first.name,
                str(first.version),
                f"{SPLIT}/{suite}",
                f"{summary['score']:.4f} [{summary['low']:.4f}, {summary['high']:.4f}]",
            )
    except Exception as error:
        console.print(f"MLflow is away ({error}); `mambacl sync` delivers the evaluation later")
