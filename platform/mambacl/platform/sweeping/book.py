"""The driver's book of a sweep's trials: a record is opened when a trial starts and closed when it ends."""

from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery
from mambacl.platform.overrides import vary
from mambacl.platform.sweeping.trial import trial_folder
from mambacl.platform.tracking import record as records
from mambacl.platform.training.bookkeeping import close_record, open_record


class Book(Callback):
    """Ray Tune calls this in the driver."""

    def __init__(self, config: ExperimentConfig, sweep: Path, delivery: Delivery) -> None:
        self.config, self.sweep, self.delivery = config, sweep, delivery
        self.stopping = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to a file that nobody reads; records and study hold it all."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        suggestion = trial.config
        run = trial_folder(self.sweep, suggestion["number"])
        tags = {"mambacl.trial": str(suggestion["number"])}
        open_record(vary(self.config, suggestion["values"]), run, self.sweep, tags)
        self.delivery.add(run)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        run = trial_folder(self.sweep, trial.config["number"])
        if self.stopping:
            close_record(run, KeyboardInterrupt())
            return
        if trial.last_result and not trial.last_result.get("finished"):
            tags = records.read(run).tags | {"mambacl.stopped": "pruned"}  # type: ignore[union-attr]
            records.update(run, tags=tags)
        close_record(run, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        run = trial_folder(self.sweep, trial.config["number"])
        text = Path(trial.error_file).read_text() if trial.error_file else "the trial's process ended"
        (run / "traceback.txt").write_text(text)
        close_record(run, RuntimeError(text.strip().splitlines()[-1]))
