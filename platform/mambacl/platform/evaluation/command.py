"""One evaluation from references to tables, figures and record: models and references on the same meta-test episodes."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress

from mambacl.platform.config import ResourcesConfig, StorageConfig
from mambacl.platform.console import console
from mambacl.platform.evaluation import figures
from mambacl.platform.evaluation.about import About
from mambacl.platform.evaluation.cells import EPISODES, Cell, cells_of, results
from mambacl.platform.evaluation.codes import competing, headline
from mambacl.platform.evaluation.contestant import Contestant, built_family, built_learner
from mambacl.platform.evaluation.measures import MEASURES
from mambacl.platform.evaluation.models import anchors, common_task, find_models
from mambacl.platform.evaluation.seen import Part, parts_of
from mambacl.platform.evaluation.suites.registry import SUITES, SuiteConfig
from mambacl.platform.evaluation.suites.suite import needs
from mambacl.platform.evaluation.summary import entries, show, show_points, show_table, summarise
from mambacl.platform.evaluation.tuned import tuned
from mambacl.platform.places import places_for
from mambacl.platform.session import session
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.record import Record
from mambacl.platform.tracking.registry import Reference, versions_of
from mambacl.platform.tracking.store import Store
from mambacl.tasks.config import ConfigError
from mambacl.tasks.randomness import Split
from mambacl.tasks.registry import TaskConfig

SPLIT: Split = "meta_test"

NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
"""What MLflow allows in no name of a metric, such as the = of a label `mamba weight=2`."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What an evaluation asks for beside models and suite."""

    episodes: int = 512
    """Meta-test episodes at each point."""
    references: Sequence[Mapping[str, Any]] | None = None
    """Learners without meta-training that stand beside the models, by default those of the kind of task."""
    features: bool = False
    """Put the references on the features of each model's encoder, too."""
    path: str | None = None
    """Where the data are now, if not where the model was trained."""
    on: str | TaskConfig | None = None
    """Task family that the models are asked about, or the experiment that has it, if not that of their own training."""
    allow_seen: bool = False
    """Ask about classes of `on` that a model met before, too, apart from new ones; by default they are refused."""
    gpus: float = 0
    """GPUs of a cell."""


def evaluate(
    models: Sequence[str] | Mapping[str, Sequence[Path]],
    suite: SuiteConfig,
    storage: StorageConfig,
    asked: Asked = Asked(),
    address: str | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Evaluate models on a suite, show the tables and write everything; returns what `mambacl evaluate --json` prints.

    models: what names them, or folders by the labels that they have in tables; several of one label are seeds of one
    learner. folder: where results go, by default one of the first model. Where classes were met before and are asked about
    all the same, they and new ones have each a summary and a folder of their own, `seen` and `new`. Raises ConfigError for an
    unknown model, one that the suite cannot ask, or classes that were met before, before Ray is started.
    """
    if asked.episodes < 2:
        raise ConfigError(f"episodes: must be at least 2 for an interval, got {asked.episodes}")
    found = find_models(models, storage)
    task = common_task([reference for _, reference in found], asked.path, asked.on, address)
    models_of = [Contestant.of(label, reference.checkpoint) for label, reference in found]
    everyone = [*models_of, *anchors(asked.references, models_of if asked.features else [], task)]
    contestants = [contestant for contestant in everyone if suite.takes(built_learner(contestant, task))]
    left_out = ", ".join({contestant.label: None for contestant in everyone if contestant not in contestants})
    named = [pair for pair, model in zip(found, models_of, strict=True) if model in contestants]
    if not named:
        raise needs(suite.name, f"{suite.demand}; there is none among {left_out}")
    if left_out:
        console.print(f"left out, since {suite.name} needs {suite.demand}: {left_out}")
    first = named[0][1]
    if asked.on is not None and suite.own_family:
        raise ConfigError(
            f"suite: {suite.name} asks about the classes that a model was trained on; it goes without --on"
        )
    parts, doubts = [Part(task)], {}
    if asked.on is not None and not MEASURES[suite.measure].machine:  # times hang on no classes
        # References read the features of models that are left out, too.
        parts, doubts = parts_of(found if asked.features else named, task, SPLIT, asked.allow_seen)
    for label, doubt in doubts.items():
        console.print(f"whether {label} met classes of {SPLIT} before is {doubt}")
    points = [part.points(suite, SPLIT) for part in parts]
    codes = competing(reference.checkpoint.config for _, reference in named)
    root = Path(storage.root).resolve()
    with session(address):
        places_for(ResourcesConfig(gpus=asked.gpus))
        if MEASURES[suite.measure].machine:
            # Times hang on neither seed nor episodes, nor on the numbers of a closed form: one cell a learner.
            asking, episodes = list({contestant.label: contestant for contestant in contestants}.values()), EPISODES
        else:
            asking = contestants = tuned(contestants, task, root, asked.gpus)
            episodes = asked.episodes
        cells = [
            [
                cell
                for point in own
                for contestant in asking
                for cell in cells_of(contestant, part.task, point, 0, episodes, suite.measure, suite.settings)
            ]
            for part, own in zip(parts, points, strict=True)
        ]
        rows = [headline(compute_with_progress(own, root, asked.gpus), codes) for own in cells]
    place = suite.name if asked.on is None else f"{suite.name}.on.{built_family(task).spec.digest[:8]}"
    folder = folder or root / "evaluations" / first.checkpoint.sha256[:12] / place
    head = {"suite": suite.name, "model": first.text, "split": SPLIT, "settings": suite.model_dump(mode="json")}
    head |= {"doubts": doubts} if doubts else {}
    summaries = {}
    for part, own_points, own_rows in zip(parts, points, rows, strict=True):
        about = About.of(part.task, codes)
        about = dataclasses.replace(about, title=about.title + part.title)
        facts = summarise(own_rows, own_points[0], part.task, contestants, about, suite.columns)
        summary = head | ({"part": part.name} if part.name else {}) | facts
        tell(summary, own_rows, suite, about, folder / part.name)
        track(folder / part.name, suite.name, summary, named, storage)
        summaries[part.name] = summary
    return summaries.get("", summaries)


def tell(summary: dict[str, Any], rows: pd.DataFrame, suite: SuiteConfig, about: About, folder: Path) -> None:
    """Show the tables and write everything; the summary gets the names of the files."""
    tables = suite.tables(rows, about)
    summary["files"] = write(folder, suite, rows, tables, about, summary)
    show(summary, about, suite.name)
    if suite.columns:
        show_table(suite.name, tables[suite.name])
    elif suite.axes and "scores" in tables:
        show_points(tables["scores"], list(entries(summary)), suite.axes, about)
    elif "scores" not in tables:
        for name, table in tables.items():
            show_table(name, table)
    for file in summary["files"]:
        console.print(file, soft_wrap=True)


def compute_with_progress(cells: Sequence[Cell], root: Path, gpus: float = 0) -> pd.DataFrame:
    """Rows of all cells, with a progress bar on a terminal and a line else."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=len(cells))
        found = results(cells, root, lambda done, _: progress.update(task, completed=done), gpus)
    console.print(f"evaluated {len(cells)} cells, {len(found):,} {'episodes' if 'episode' in found else 'rows'}")
    return found


def write(
    folder: Path,
    suite: SuiteConfig,
    rows: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    about: About,
    summary: dict[str, Any],
) -> list[str]:
    """Rows as parquet, tables as CSV, figures as PNG, summary as JSON; returns the files, pictures first."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [figures.save(figure, folder / f"{name}.png") for name, figure in suite.figures(rows, about).items()]
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        files.append(folder / f"{name}.csv")
    rows.to_parquet(folder / "episodes.parquet")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    return [str(file) for file in [*files, folder / "episodes.parquet", folder / "summary.json"]]


def track(
    folder: Path, suite: str, summary: dict[str, Any], named: Sequence[tuple[str, Reference]], storage: StorageConfig
) -> None:
    """Log the evaluation as a run of its own, linked with the first model's run and with all versions of the models."""
    first, part = named[0][1], summary.get("part")
    what = f"{suite}/{part}" if part else suite
    found, metrics = entries(summary), {}
    for label, entry in found.items():
        prefix = SPLIT if label == summary["label"] else f"{SPLIT}/{NOT_IN_NAMES.sub('-', label)}"
        kinds = ["score", "low", "high", "score_all", "score_seen", "difference", "difference_low", "difference_high"]
        kinds += [column + end for column in SUITES[suite].columns for end in ("", "_low", "_high")]
        metrics |= {f"{prefix}/{kind}": entry[kind] for kind in kinds if kind in entry}
    tags = {"mambacl.model": first.text, "mambacl.suite": suite, "mambacl.sha256": first.checkpoint.sha256}
    if first.run_id:
        tags["mambacl.trained_by"] = first.run_id
    known = records.read(folder)
    records.write(
        folder,
        Record(
            kind="evaluation",
            name=f"{what} of {first.label}",
            experiment=first.checkpoint.config.name,
            tags=tags,
            metrics=metrics,
            params={"suite": suite} | ({"episodes": summary["episodes"]} if "episodes" in summary else {}),
            status="FINISHED",
            run_id=known.run_id if known else None,
        ),
    )
    try:
        store = Store(storage)
        run_id = store.deliver(folder).run_id or ""
        for label, reference in named:
            for version in versions_of(store, reference):
                store.tag_version(*version, f"evaluation/{what}", run_id)
                if "score" in found[label]:
                    score = "{score:.4f} [{low:.4f}, {high:.4f}]".format(**found[label])
                    store.tag_version(*version, f"{SPLIT}/{what}", score)
    except Exception as error:
        console.print(f"MLflow is away ({error}); `mambacl sync` delivers the evaluation later")
