"""Training of all entries of a study, several at a time."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ray.actor import ActorHandle

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.driver import Delivery, attend
from mambacl.platform.places import places_for
from mambacl.platform.tracking import record as records
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.run import train


def train_all(
    runs: Mapping[Path, ExperimentConfig], folder: Path, delivery: Delivery, board: ActorHandle, concurrent: int | None
) -> dict[Path, str]:
    """Train every run, several at a time; returns why some could not be, by folder. Ctrl-C ends them all with checkpoints."""
    most = min(places_for(experiment.resources) for experiment in runs.values())
    pool = ThreadPoolExecutor(min(most, concurrent or most), "train")
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
