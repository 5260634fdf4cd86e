"""A study before it is run: what each experiment answers, what it trains, and how long a device would take for it."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.console import SIZES, amount, console, settings, size_cells, table
from mambacl.platform.cost import Size, size_of
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.suites.registry import SuiteConfig
from mambacl.platform.studying.config import Entry, StudyConfig
from mambacl.platform.studying.devices import SUSTAINED, Device
from mambacl.platform.studying.searching import search_config
from mambacl.platform.sweeping.plan import expected_steps
from mambacl.tasks.config import ConfigError
from mambacl.tasks.family import Family
from mambacl.tasks.registry import TaskConfig

BACKWARD = 3
"""How many times the arithmetic of an answer a training step takes."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One training of a study, with its share of search and evaluation."""

    entry: Entry
    size: Size
    steps: int
    """Optimiser steps, those of the search included."""
    flops: float
    """Floating-point operations of all of it."""


def planned(config: StudyConfig, entries: Sequence[Entry], family_of: Callable[[TaskConfig], Family]) -> list[Planned]:
    """What the trainings of a study cost. family_of: the family of a task, or one of the same size."""
    known: dict[str, Size] = {}
    found = []
    for entry in entries:
        experiment, family = entry.experiment, family_of(entry.experiment.task)
        alike = _alike(experiment, family)
        if alike not in known:
            known[alike] = size_of(build_learner(experiment.learner, family.spec), family)
        size, train = known[alike], experiment.train
        steps = _steps(config, entry) if size.parameters else 0
        episodes = steps * (BACKWARD * train.batch + train.evaluate_episodes / train.evaluate_every)
        asked = sum(_suite_flops(suite, family, size) for suite in config.asked)
        flops = episodes * _episode_flops(Point.as_trained(family, "meta_train"), size) + config.episodes * asked
        found.append(Planned(entry, size, round(steps), flops))
    return found


def _alike(experiment: ExperimentConfig, family: Family) -> str:
    """The same for experiments of the same size."""
    task, spec = experiment.task, family.spec.model_copy(update={"digest": ""})
    return f"{experiment.learner.model_dump_json()} {spec.model_dump_json()} {task.tasks} {task.shots} {task.queries}"


def _steps(config: StudyConfig, entry: Entry) -> float:
    """Steps of a training; with those of the search, which comes once for all seeds, on the first of them."""
    steps: float = entry.experiment.train.steps
    if config.search and entry.seed == config.seeds[0]:
        steps += expected_steps(search_config(entry, config.search, StorageConfig()))
    return steps


def _suite_flops(suite: SuiteConfig, family: Family, size: Size) -> float:
    """Of one episode at each point of a suite; nothing where it cannot be asked. After each task again, as forgetting asks,
    queries are half as many as tasks times all."""
    try:
        points = suite.points(family, "meta_test")
    except ConfigError:
        return 0.0
    again = family.config.tasks / 2 if suite.measure == "forgetting" else 1
    return sum(_episode_flops(point, size, again) for point in points)


def _episode_flops(point: Point, size: Size, again: float = 1) -> float:
    """Of one episode, answered. again: times that its queries are asked."""
    return point.tasks * (point.shots * size.support_flops + again * point.queries * size.query_flops)


def show(config: StudyConfig, plan: Sequence[Planned], device: Device) -> dict[str, Any]:
    """Print the plan, a line an experiment over its families and seeds; returns what `--json` prints, by family and experiment."""
    by_label: dict[str, list[Planned]] = {}
    for one in plan:
        by_label.setdefault(one.entry.label, []).append(one)
    rows = []
    for label, own in by_label.items():
        first = own[0]
        rows.append(
            [
                label, _differences(first.entry.experiment), *size_cells(dataclasses.asdict(first.size)),
                sum(one.steps for one in own), f"{hours(own, device):.3g}",
            ]
        )  # fmt: skip
    if config.question:
        console.print(config.question, soft_wrap=True)
    families = list(dict.fromkeys(one.entry.family for one in plan))
    counts = [f"{len(config.seeds)} seeds"] + (
        [f"{len(families)} families: {', '.join(families)}"] if families != [""] else []
    )
    if config.search:
        counts.append(f"a search of {config.search.trials} trials for each")
    table(
        f"study {config.name}: {', '.join(counts)}",
        ["experiment", "learner", *SIZES, "steps", f"hours of\n{device}"],
        rows,
    )
    table("", ["experiment", "what it answers"], [[label, own[0].entry.answers] for label, own in by_label.items()])
    total = hours(plan, device)
    console.print(
        f"all together {amount(sum(one.flops for one in plan), 'FLOPs')}: an estimated {total:,.3g} hours of one {device}"
        f" ({total / 24:,.3g} days), for training, search and suites"
    )
    groups: dict[str, list[Planned]] = {}
    for one in plan:
        groups.setdefault(one.entry.group, []).append(one)
    return {
        group: own[0].entry.experiment.learner.model_dump(mode="json", exclude_defaults=True)
        | {"name": own[0].entry.experiment.learner.name, "answers": own[0].entry.answers}
        | dataclasses.asdict(own[0].size)
        | {"steps": sum(one.steps for one in own), "device": device, "hours": hours(own, device)}
        for group, own in groups.items()
    }


def hours(plan: Iterable[Planned], device: Device) -> float:
    """How long one such device would take."""
    return sum(one.flops for one in plan) / SUSTAINED[device] / 3600


def _differences(experiment: ExperimentConfig) -> str:
    """The learner's fields that are not its defaults."""
    fields = experiment.learner.model_dump(mode="json", exclude_defaults=True)
    return settings(fields) or "by default"
