"""An experiment: one file that names a task family, a learner, its training and a search, the same on laptop and cluster."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from mambacl.learners.mixers.mamba_config import MambaConfig
from mambacl.learners.registry import LearnerConfig
from mambacl.learners.selectivity_config import SelectivityConfig
from mambacl.tasks.config import Config
from mambacl.tasks.images_config import GlyphsConfig
from mambacl.tasks.registry import TaskConfig
from mambacl.tasks.stream_config import QueryAfter

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Length = Annotated[int, Field(ge=1)]
Choice = bool | int | float | str | None
Floats = tuple[float, float]
Ints = tuple[int, int]


class StageConfig(Config):
    """A part of the curriculum: episodes until some step. Two numbers are a range to draw from evenly at each step."""

    until: Annotated[int, Field(ge=1)] | None = None
    """First training step after this stage; the last stage may go without, and then lasts to the end."""
    tasks: Length | tuple[Length, Length] | None = None
    """Tasks of an episode; default: the task family's."""
    shots: Length | tuple[Length, Length] | None = None
    """Shots of a task; default: the task family's."""
    query_after: QueryAfter | None = None
    """When queries are asked; default: as in the task family's stream."""


class OrderedCodesConfig(Config):
    """Episodes in which label codes are not drawn: the k-th task of the stream has code k. GPICL keeps one assignment of labels for a
    share of each batch, against the plateau at the start of meta-training (Kirsch et al., 2022)."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of the episodes of a batch."""
    until: Annotated[int, Field(ge=1)]
    """Step at which all codes are drawn."""


class TrainConfig(Config):
    """How a learner is meta-trained."""

    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimiser steps."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Episodes of a step, over all workers and accumulated parts."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts into which a worker cuts its share of the batch, to need less memory."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Optimiser; adam applies weight decay as a penalty in the gradient."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay; it falls on matrices that tokens are multiplied with, and on nothing else."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate after warm-up: to zero along a cosine, halved at times, or held."""
    halve_every: Annotated[int, Field(ge=1)] = 10_000
    """Steps between halvings of the `step` schedule."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient, or null for any."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Factors of matrix products, where the processor multiplies both: GPUs do, and CPUs with AVX512-BF16. Scans stay in float32."""
    curriculum: tuple[StageConfig, ...] = ()
    """Shorter or random episodes first; after the last stage they have the family's size. One stage without an end, such as
    [{tasks: [5, 30]}], trains on random lengths throughout."""
    state_passing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the steps in which streams start from the state after another episode, for which no gradients are taken,
    rather than from an empty one: learners that never meet used states fail on long streams. For learners with a state of
    fixed size."""
    codes: Literal["all", "seen"] = "all"
    """Label codes that compete in the training loss: all V, or those of the stream."""
    ordered_codes: OrderedCodesConfig | None = None
    """Start with episodes in which label codes are not drawn; by default they always are."""
    evaluate_every: Annotated[int, Field(ge=1)] = 100
    """Steps between evaluations on meta-val; each is also a checkpoint."""
    evaluate_episodes: Annotated[int, Field(ge=1)] = 64
    """Meta-val episodes of an evaluation, always the same ones."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many evaluations without a better score; default: never."""
    keep: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints that are kept, beside the best."""

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        ends = [stage.until for stage in self.curriculum]
        known = [end for end in ends if end is not None]
        if None in ends[:-1] or known != sorted(set(known)):
            raise ValueError(f"curriculum: `until` must rise from stage to stage, got {ends}")
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate = {self.accumulate} must divide batch = {self.batch}")
        return self


class ResourcesConfig(Config):
    """What a training run asks of the cluster."""

    trainer: Literal["ray", "inline"] = "ray"
    """Who trains: Ray Train's workers, or for one worker inline, in the trial's own process: many short trials spend less time
    on starting."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Ray Train workers; they share each batch."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """CPUs of a worker, and its threads."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of a worker."""
    accelerator: str | None = None
    """Only nodes with this kind of accelerator, as Ray names it, such as A100; default: any."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """Workers on as few nodes as possible, or on many; strictly: on one node, or each on a node of its own."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often workers that died are started again from the newest checkpoint; those that were asked to leave their machine
    (SIGTERM, a node that is drained) write one first and are not counted, nor are those whose machine was lost or out of reach."""

    @model_validator(mode="after")
    def _workers_fit(self) -> Self:
        if self.trainer == "inline" and self.workers > 1:
            raise ValueError(f"trainer: inline trains with one worker, got workers = {self.workers}")
        if self.workers > 1 and self.gpus % 1:
            raise ValueError(f"gpus: several workers need whole GPUs, got {self.gpus}")
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus: more than one must be whole, got {self.gpus}")
        return self


class DimensionConfig(Config):
    """One searched field: exactly one of log, float, int, choice."""

    log: Floats | None = None
    """Lowest and highest value, uniform in the logarithm."""
    float: Floats | None = None
    """Lowest and highest value, uniform."""
    int: Ints | None = None
    """Lowest and highest whole number."""
    choice: tuple[Choice, ...] | None = None
    """Values to choose from."""
    when: dict[str, Any] = {}
    """Searched only where these fields have these values, such as {learner.name: mamba}."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in ("log", "float", "int", "choice") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"needs exactly one of log, float, int, choice, got {', '.join(kinds) or 'none'}")
        bounds = getattr(self, kinds[0])
        if kinds[0] == "choice":
            if not bounds:
                raise ValueError("choice needs at least one value")
        elif bounds[0] > bounds[1] or (kinds[0] == "log" and bounds[0] <= 0):
            raise ValueError(
                f"{kinds[0]} needs low <= high{', above 0' if kinds[0] == 'log' else ''}, got {list(bounds)}"
            )
        return self


class SweepConfig(Config):
    """How the search is run."""

    trials: Annotated[int, Field(ge=1)] = 8
    """Trials in all: a resumed sweep runs what is missing."""
    objectives: tuple[Literal["score"]] | tuple[Literal["score"], Literal["state_floats"]] = ("score",)
    """What is optimised on meta-val: the score, or score and state floats together (a Pareto front)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the sampler."""
    grace: Annotated[int, Field(ge=1)] | None = None
    """Steps that every trial may take before it can be stopped early; default: a quarter of train.steps."""
    reduction: Annotated[int, Field(ge=2)] = 2
    """At each rung one of so many trials goes on."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; default: as many as the cluster's resources allow."""
    compare: dict[Name, dict[str, Any]] = {}
    """Experiments run once to stand beside the champion in the final table: by name, the fields in which each differs from
    this one, such as {attention: {learner.name: attention, train.learning_rate: 0.001}}."""


class StorageConfig(Config):
    """Where runs are kept."""

    root: str = "runs"
    """Folder of runs, checkpoints and results; on a cluster one that all nodes share."""
    tracking_uri: str | None = None
    """MLflow tracking store; default: the environment's MLFLOW_TRACKING_URI, or SQLite in `root`."""
    study_uri: str | None = None
    """Optuna's RDB storage; default: the environment's MAMBACL_STUDY_URI, or SQLite in `root`."""

    @field_validator("tracking_uri", "study_uri")
    @classmethod
    def _no_password(cls, uri: str | None, info: ValidationInfo) -> str | None:
        if uri and urlsplit(uri).password:
            way = "MAMBACL_STUDY_URI" if info.field_name == "study_uri" else "MLFLOW_TRACKING_PASSWORD"
            raise ValueError(f"holds a password, which every run would keep; put it into the environment, as {way}")
        return uri


class ExperimentConfig(Config):
    """One experiment."""

    name: Name
    """Names the sweep, the MLflow experiment and the registered model."""
    seed: Annotated[int, Field(ge=0, lt=2**20)] = 0
    """Seed of initial weights and of which meta-train episodes are seen."""
    task: TaskConfig = GlyphsConfig()
    """Where episodes come from."""
    learner: LearnerConfig = MambaConfig()
    """What is meta-trained."""
    selectivity: SelectivityConfig = SelectivityConfig()
    """Selectivity regularisation."""
    train: TrainConfig = TrainConfig()
    """Meta-training."""
    search: dict[str, DimensionConfig] = {}
    """Fields that a sweep searches, by dotted name."""
    sweep: SweepConfig = SweepConfig()
    """How a sweep is run."""
    resources: ResourcesConfig = ResourcesConfig()
    """What a run asks of the cluster."""
    storage: StorageConfig = StorageConfig()
    """Where results are kept."""

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the trained weights: task, learner, selectivity, training and seed."""
        content = self.model_dump(mode="json", include={"task", "learner", "selectivity", "train", "seed"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
