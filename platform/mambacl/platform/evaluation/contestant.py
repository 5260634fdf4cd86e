"""What is evaluated: a meta-trained model or a reference, on the task family of some experiment."""

import functools
import hashlib
import json

from torch import nn

from mambacl.learners.learner import Learner
from mambacl.learners.on_features import OnFeatures
from mambacl.learners.registry import LearnerConfig
from mambacl.learners.registry import build as build_learner
from mambacl.platform.training.checkpoint import Checkpoint
from mambacl.tasks.config import Config, ConfigError
from mambacl.tasks.family import Family
from mambacl.tasks.registry import TaskConfig
from mambacl.tasks.registry import build as build_family


class Contestant(Config):
    """A learner with weights from a checkpoint folder, or without any: a reference, on the input or on features."""

    label: str
    """Its name in tables and figures."""
    learner: LearnerConfig
    weights: str | None = None
    """Checkpoint folder, on storage that all nodes share."""
    features: str | None = None
    """Checkpoint folder of the model whose encoder makes the features of a reference; by default it reads the input."""
    model: str = ""
    """SHA-256 of that model; empty where a reference reads the input."""
    seed: int = 0
    """That it was meta-trained with. Contestants of one label are one learner, trained several times."""
    fixed: tuple[str, ...] = ()
    """Fields of a reference's learner that were given: the others among its `choices` are chosen on meta-val."""
    sha256: str
    """Identifies weights and config: results are kept under it."""

    @property
    def trained(self) -> bool:
        """Whether it was meta-trained, or stands in the table as a reference."""
        return self.weights is not None

    @classmethod
    def of(cls, label: str, checkpoint: Checkpoint) -> "Contestant":
        """The model of a checkpoint folder. Raises ConfigError where its files are not what its manifest says."""
        if fault := checkpoint.fault():
            raise ConfigError(f"{checkpoint.path}: refused, {fault}")
        config = checkpoint.config
        return cls(
            label=label,
            learner=config.learner,
            weights=str(checkpoint.path),
            seed=config.seed,
            sha256=checkpoint.sha256,
        )

    @classmethod
    def reference(
        cls, learner: LearnerConfig, model: "Contestant | None" = None, fixed: tuple[str, ...] = ()
    ) -> "Contestant":
        """A learner that needs no meta-training, on the input or on the features of a model's encoder. fixed: its fields that
        are not to be chosen."""
        return cls(
            label=f"{learner.name} on {model.label}" if model else learner.name,
            learner=learner,
            features=model.weights if model else None,
            model=model.sha256 if model else "",
            seed=model.seed if model else 0,
            fixed=fixed,
            sha256=_identity(learner, model.sha256 if model else ""),
        )

    def with_learner(self, learner: LearnerConfig) -> "Contestant":
        """The same reference with other fields of its learner."""
        return self.model_copy(update={"learner": learner, "sha256": _identity(learner, self.model)})

    def load(self, family: Family) -> Learner:
        """The learner, ready to answer. Raises ConfigError where it was trained for another kind of family."""
        if self.features is None:
            learner = build_learner(self.learner, family.spec)
            if self.weights is not None:
                checkpoint = _checked(self.weights)
                if checkpoint.sha256 != self.sha256:
                    raise ConfigError(f"{self.weights}: refused, it holds another model")
                learner.load_state_dict(checkpoint.weights)
            return learner.eval()
        checkpoint = _checked(self.features)
        if _identity(self.learner, checkpoint.sha256) != self.sha256:
            raise ConfigError(f"{self.features}: refused, it holds another model")
        model = build_learner(checkpoint.config.learner, family.spec)
        model.load_state_dict(checkpoint.weights)
        width = checkpoint.config.learner.width  # type: ignore[attr-defined]  # what has an encoder has its width
        return OnFeatures(model.encoder, width, family.spec, lambda spec: build_learner(self.learner, spec)).eval()  # type: ignore[arg-type]


def has_encoder(model: Learner) -> bool:
    """Whether references can read a model's features."""
    return isinstance(getattr(model, "encoder", None), nn.Module)


def _identity(learner: LearnerConfig, features: str) -> str:
    """Identifies a reference: its config and the model that makes its features."""
    return hashlib.sha256((learner.model_dump_json() + features).encode()).hexdigest()


def _checked(path: str) -> Checkpoint:
    checkpoint = Checkpoint.model_validate({"path": path})
    if fault := checkpoint.fault():
        raise ConfigError(f"{path}: refused, {fault}")
    return checkpoint


def built_family(task: TaskConfig) -> Family:
    """The family of a config, built once in a process."""
    return _built_family(task.model_dump_json())


def built_learner(contestant: Contestant, task: TaskConfig) -> Learner:
    """The contestant's learner for a family, loaded once in a process."""
    return _built_learner(contestant.model_dump_json(), task.model_dump_json())


@functools.lru_cache(maxsize=4)
def _built_family(task: str) -> Family:
    return build_family(json.loads(task))


@functools.lru_cache(maxsize=16)
def _built_learner(contestant: str, task: str) -> Learner:
    return Contestant.model_validate_json(contestant).load(_built_family(task))
