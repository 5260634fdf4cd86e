"""Promotion: the candidate against the champion, on meta-confirm: classes that no trial was trained or chosen on.

MLflow sets an alias without asking what it was. So promotions of a model wait for each other where they share a root; where
two roots share an MLflow server, each says that it promotes, sets the alias, and then looks who else said so, until the alias
is with the best of them: whoever sets it last sees all.
"""

import functools
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from mlflow.exceptions import MlflowException

from mambacl.learners.objective import higher_is_better
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.console import console
from mambacl.platform.evaluation.cells import cells_of, results
from mambacl.platform.evaluation.codes import competing, headline
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.point import Point
from mambacl.platform.evaluation.statistics import Interval, Sample, paired_difference
from mambacl.platform.evaluation.tables import sample
from mambacl.platform.tracking.registry import CHAMPION, Reference, find
from mambacl.platform.tracking.store import Store
from mambacl.tasks.config import ConfigError

EPISODES = 256
"""Episodes of promotion."""

CLAIM = "promotion.at"
"""Tag of a version that was found better than the champion: when."""


def promote(store: Store, config: ExperimentConfig, version: int) -> bool:
    """Move the alias `champion` to this version if it is better on the same episodes of meta-confirm, the 95 % interval of
    the paired difference above zero; the first version of a model becomes champion. Tags of the versions say who replaced
    whom, when, and by which difference. Returns whether it is champion now.

    Raises ConfigError where the champion was trained on another task family: those never compare.
    """
    with FileLock(Path(config.storage.root) / f".{config.name}.promotion.lock"):
        return Promotion(store, config).of(version)


class Promotion:
    """The versions of a model, while one of them is promoted."""

    def __init__(self, store: Store, config: ExperimentConfig) -> None:
        self.store, self.config, self.name = store, config, config.name
        self.reference = functools.cache(lambda version: find(f"models:/{self.name}/{version}", config.storage))
        self.scores = functools.cache(lambda version: scores(config, f"version {version}", self.reference(version)))
        self.sign = 1 if higher_is_better(config.task.output) else -1

    def of(self, version: int) -> bool:
        """Promote this version, or not."""
        known, holder = self.claims(), self.champion()
        if holder == version:
            return True
        if holder is not None and not self.beats(version, holder):
            return False
        self.tag(version, CLAIM, datetime.now(UTC).isoformat())
        self.crown(version, holder)
        while (best := self.best_of(version, known)) != (now := self.champion()):
            self.crown(best, now)
        if best != version:
            self.tag(version, "promotion.replaced_by", self.told(best, best, version))
        return best == version

    def beats(self, version: int, holder: int) -> bool:
        """Whether a version is better than the champion beyond doubt; it is said with it."""
        difference = self.difference(version, holder)
        better = difference.low > 0 if self.sign > 0 else difference.high < 0
        self.tag(version, "promotion", f"minus version {holder}: {difference} over {difference.over}")
        console.print(
            f"candidate version {version} minus champion version {holder}: {difference}: {'promoted' if better else 'not better'}"
        )
        return better

    def best_of(self, version: int, known: dict[int, str]) -> int:
        """Of this version and those that were promoted meanwhile the one with the best score, of equal ones the first."""
        rivals = sorted({version} | {other for other, at in self.claims().items() if known.get(other) != at})
        return max(rivals, key=lambda one: self.sign * self.scores(one).score) if len(rivals) > 1 else version

    def champion(self) -> int | None:
        """The version that has the alias."""
        try:
            return int(self.store.client.get_model_version_by_alias(self.name, CHAMPION).version)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                raise
            return None

    def claims(self) -> dict[int, str]:
        """Which versions were found better than the champion of their time, and when."""
        found = self.store.client.search_model_versions(f"name = '{self.name}'")
        return {int(version.version): version.tags[CLAIM] for version in found if CLAIM in version.tags}

    def crown(self, version: int, before: int | None) -> None:
        """Give a version the alias, and say so with it and with the one before."""
        if before is not None:
            self.tag(version, "promotion.replaced", self.told(before, version, before))
            self.tag(before, "promotion.replaced_by", self.told(version, version, before))
        self.store.set_alias(self.name, CHAMPION, version)

    def told(self, other: int, winner: int, loser: int) -> str:
        """For a tag: the other version, when, and winner minus loser."""
        return (
            f"version {other}, {datetime.now(UTC).isoformat(timespec='seconds')}, by {self.difference(winner, loser)}"
        )

    def tag(self, version: int, key: str, value: str) -> None:
        self.store.tag_version(self.name, version, key, value)

    def difference(self, ours: int, theirs: int) -> Interval:
        """One version minus another, on promotion's episodes."""
        if family_of(self.reference(ours)) != family_of(self.reference(theirs)):
            raise ConfigError(
                f"name: the champion of {self.name!r} was trained on another task family; choose another --name"
            )
        return paired_difference(self.scores(ours), self.scores(theirs))


def family_of(reference: Reference) -> tuple:
    """What two models must share to be compared: data, splits and episode size."""
    task = reference.checkpoint.config.task
    return reference.checkpoint.progress.spec.digest, task.tasks, task.shots, task.queries


def scores(config: ExperimentConfig, label: str, reference: Reference) -> Sample:
    """The model's scores on promotion's episodes, among the codes that the experiment trains with."""
    task = reference.checkpoint.config.task
    contestant = Contestant.of(label, reference.checkpoint)
    point = Point.as_trained(built_family(task).fitted("meta_confirm"), "meta_confirm")
    cells = cells_of(contestant, task, point, 0, EPISODES)
    rows = results(cells, Path(config.storage.root).resolve(), lambda done, all: None)
    return sample(headline(rows, competing([config])))
