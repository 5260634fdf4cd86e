"""The driver's book of a sweep's trials: a record is opened when a trial starts and closed when it ends; between, it is
counted how often its process died."""

from collections import Counter
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.lost import LostNodes, out_of_reach
from mambacl.platform.overrides import vary
from mambacl.platform.sweeping.trial import trial_folder
from mambacl.platform.tracking import record as records
from mambacl.platform.training import checkpoint, failure
from mambacl.platform.training.bookkeeping import close_record, open_record


class Book(Callback):
    """Ray Tune calls this in the driver."""

    def __init__(self, config: ExperimentConfig, sweep: Path, delivery: Delivery) -> None:
        self.config, self.sweep, self.delivery = config, sweep, delivery
        self.stopping = False
        self.died: Counter[Path] = Counter()
        self.preempted: dict[Path, int] = {}
        self.lost = LostNodes()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to a file that nobody reads; records and study hold it all."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        run = self._folder(trial)
        self.preempted.setdefault(run, _preempted(run))
        self.lost.another(run)  # a node that was lost before is no excuse
        tags = {"mambacl.trial": str(trial.config["number"])}
        open_record(vary(self.config, trial.config["values"]), run, self.sweep, tags)
        self.delivery.add(run)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        run = self._folder(trial)
        if self.stopping:
            close_record(run, KeyboardInterrupt())
            return
        if failed := failure.read(run):
            close_record(run, failed)
            return
        if trial.last_result and not trial.last_result.get("finished"):
            tags = records.read(run).tags | {"mambacl.stopped": "pruned"}  # type: ignore[union-attr]
            records.update(run, tags=tags)
        close_record(run, None)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ray Tune starts the trial's process again, however often; one that died too often finds that its run has failed. It may
        have died before it had started."""
        run = self._folder(trial)
        times, lost = _preempted(run), self.lost.another(run)
        if times > self.preempted.setdefault(run, times):
            self.preempted[run] = times
            return
        text = _words(trial)
        if lost or out_of_reach(text.rpartition("Failure # ")[2]):
            return
        self.died[run] += 1
        if self.died[run] > self.config.resources.retries:
            failure.write(run, text.strip().splitlines()[-1], text)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Its process could not even be started."""
        run, text = self._folder(trial), _words(trial)
        close_record(run, failure.write(run, text.strip().splitlines()[-1], text))

    def _folder(self, trial: Trial) -> Path:
        return trial_folder(self.sweep, trial.config["number"])


def _preempted(run: Path) -> int:
    """How often the run was asked to leave its machine."""
    last = checkpoint.newest(run)
    return last.progress.preempted if last else 0


def _words(trial: Trial) -> str:
    """What Ray Tune says of a trial's errors, each with its number, the newest last."""
    return Path(trial.error_file).read_text() if trial.error_file else "the trial's process ended"
