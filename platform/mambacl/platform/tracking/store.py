"""Delivery of run folders to an MLflow tracking store. Doing it twice changes nothing."""

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlencode

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from sqlalchemy import make_url

from mambacl.platform.config import StorageConfig
from mambacl.platform.tracking import classes
from mambacl.platform.tracking import record as records
from mambacl.platform.tracking.classes import Classes
from mambacl.platform.tracking.record import Record
from mambacl.platform.training import checkpoint, figures

VARIABLE = "MLFLOW_TRACKING_URI"

_environment = threading.Lock()
"""All threads have the same environment."""

PORT = 5000
"""Of MLflow's pages on a store that no server has."""

BATCH = 1000
"""Metrics of one call: MLflow's limit."""

DIGEST = 36
"""Characters of a data set's digest: MLflow's limit."""

ARTIFACTS = (".csv", ".html", ".md", ".parquet", ".png", ".txt", ".yaml")
"""Endings of the files in a run's folder that MLflow gets."""


def tracking_uri(storage: StorageConfig) -> str:
    """Where runs are tracked."""
    if uri := storage.tracking_uri or os.environ.get(VARIABLE):
        return uri
    return f"sqlite:///{Path(storage.root).resolve()}/mlflow.db"


class Store:
    """An MLflow tracking store. Every method raises what MLflow raises when the store is away."""

    def __init__(self, storage: StorageConfig) -> None:
        self.uri = tracking_uri(storage)
        self.artifacts = (
            None
            if "://" in self.uri and not self.uri.startswith("sqlite")
            else Path(storage.root).resolve() / "mlartifacts"
        )
        Path(storage.root).mkdir(parents=True, exist_ok=True)
        self._lock = Path(storage.root) / ".mlflow.lock"
        self._writing = threading.Lock()

    @property
    def pages(self) -> str:
        """Where its pages are, or the command that opens them."""
        if self.uri.startswith("http"):
            return self.uri
        return f"mlflow ui --backend-store-uri {self.uri} --host 127.0.0.1 --port {PORT} --workers 1"

    def comparison(self, runs: Iterable[Path]) -> str:
        """The page that sets the runs of some folders side by side."""
        found = [record for run in runs if (record := records.read(run)) and record.run_id]
        experiments = {self.experiment(record.experiment) for record in found}
        asked = {
            "runs": json.dumps([record.run_id for record in found]),
            "experiments": json.dumps(sorted(experiments)),
        }
        server = self.uri if self.uri.startswith("http") else f"http://127.0.0.1:{PORT}"
        return f"{server}/#/compare-runs?{urlencode(asked)}"

    @functools.cached_property
    def client(self) -> MlflowClient:
        """MLflow's client. Two processes that open a new SQLite store at once would both lay out its tables."""
        with FileLock(self._lock) if self.artifacts else nullcontext():
            if self.uri.startswith("sqlite"):
                _lay_out(self.uri)
            return _opened(self.uri)

    @contextmanager
    def globally(self) -> Iterator[None]:
        """Make this MLflow's store for code that is given none: it looks models of a version up there."""
        with _environment:
            before = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = self.uri
            try:
                yield
            finally:
                os.environ.pop(VARIABLE)
                if before is not None:
                    os.environ[VARIABLE] = before

    def experiment(self, name: str) -> str:
        """The id of an experiment, made where there is none yet."""
        if found := self.client.get_experiment_by_name(name):
            return found.experiment_id
        location = str(self.artifacts / name) if self.artifacts else None
        try:
            return self.client.create_experiment(name, artifact_location=location)
        except MlflowException:  # another process was first
            if found := self.client.get_experiment_by_name(name):
                return found.experiment_id
            raise

    def deliver(self, folder: Path) -> Record:
        """Bring MLflow up to date with a run's folder: the run, its parent, params, data, curve so far, and at its end
        figures, config, classes and best checkpoint."""
        with self._writing:
            return self._deliver(folder)

    def _deliver(self, folder: Path) -> Record:
        record = records.read(folder)
        assert record is not None, f"{folder} has no record"
        if record.delivered:
            return record
        if record.run_id is None:
            record = records.update(folder, run_id=self._create(folder, record))
        run_id = record.run_id
        assert run_id is not None
        last = checkpoint.newest(folder) if record.kind == "train" else None
        if last and last.progress.step > record.sent:
            self._log_metrics(run_id, _points(point for point in last.curve if point["step"] > record.sent))
            records.update(folder, sent=last.progress.step)
        if record.status == "RUNNING":
            return record
        self._log_metrics(run_id, [Metric(name, value, record.started, 0) for name, value in record.metrics.items()])
        if last:
            if last.curve[0]["step"] < last.curve[-1]["step"]:  # of a single step there is no curve to see
                self.client.log_figure(run_id, figures.learning_curve(last.curve, record.name), "learning_curve.png")
            if use := last.progress.expert_use:
                self.client.log_figure(run_id, figures.expert_use(use, record.name), "expert_use.png")
            self.client.log_artifacts(run_id, str(checkpoint.best(folder).path), "checkpoint")
        for file in sorted(folder.iterdir()):
            if file.suffix in ARTIFACTS or file.name == classes.FILE:
                self.client.log_artifact(run_id, str(file))
        self.set_tags(run_id, record.tags)
        self.client.set_terminated(run_id, record.status)
        return records.update(folder, delivered=True)

    def _create(self, folder: Path, record: Record) -> str:
        tags = dict(record.tags)
        if record.parent:
            parent = self._deliver(Path(record.parent))
            tags["mlflow.parentRunId"] = parent.run_id or ""
        # A run made just before a kill, and not yet in the record, is found again by its folder.
        tags["mambacl.folder"] = str(folder.resolve())
        experiment = self.experiment(record.experiment)
        known = self.client.search_runs(
            [experiment], f"tags.`mambacl.folder` = '{tags['mambacl.folder']}'", max_results=1
        )
        if known:
            return known[0].info.run_id
        run = self.client.create_run(experiment, run_name=record.name, tags=tags, start_time=record.started)
        params = [Param(name, str(value)) for name, value in record.params.items()]
        self.client.log_batch(run.info.run_id, params=params[:100])
        if drawn := classes.read(folder):
            self.client.log_inputs(run.info.run_id, _inputs(drawn))
        return run.info.run_id

    def _log_metrics(self, run_id: str, metrics: Iterable[Metric]) -> None:
        # A metric with the same key, step, time and value is the same row to MLflow: repeating it adds nothing.
        metrics = list(metrics)
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def tag_version(self, name: str, version: str | int, key: str, value: str) -> None:
        """Set a tag of a model's version."""
        _twice(lambda: self.client.set_model_version_tag(name, str(version), key, value))

    def set_alias(self, name: str, alias: str, version: str | int) -> None:
        """Give an alias of a model to one of its versions."""
        _twice(lambda: self.client.set_registered_model_alias(name, alias, str(version)))


def _twice(write: Callable[[], object]) -> None:
    """Once more where it fails: MLflow looks whether a row is there and then inserts it, which fails where somebody else
    inserts it in between; it is there at the second look."""
    try:
        write()
    except MlflowException:
        write()


def _opened(uri: str) -> MlflowClient:
    client = MlflowClient(uri, uri)
    client.search_experiments(max_results=1)
    return client


def _lay_out(uri: str) -> None:
    """Make a SQLite store that is not there yet: MLflow makes its tables one by one, and never opens it again where a kill
    has left some of them."""
    url = make_url(uri)
    place = Path(url.database or "")
    if place.exists():
        return
    draft = place.with_name(f"{place.name}.draft") / place.name  # a folder, since SQLite may leave a journal beside it
    shutil.rmtree(draft.parent, ignore_errors=True)
    draft.parent.mkdir(parents=True)
    _opened(url.set(database=str(draft)).render_as_string())
    draft.rename(place)
    draft.parent.rmdir()


def _points(curve: Iterable[Mapping[str, float]]) -> list[Metric]:
    return [
        Metric(name, value, int(point["time"]), int(point["step"]))
        for point in curve
        for name, value in point.items()
        if name not in ("step", "time")
    ]


def _inputs(drawn: Classes) -> list[DatasetInput]:
    """A data set for each split. MLflow takes two of one name and digest for the same, so the split is in the name."""
    source = json.dumps({"uri": drawn.source})
    return [
        DatasetInput(
            Dataset(f"{drawn.family} {split}", drawn.digest[:DIGEST], "local", source),
            [InputTag(MLFLOW_DATASET_CONTEXT, split), InputTag("mambacl.classes", found.digest)],
        )
        for split, found in drawn.splits.items()
    ]
