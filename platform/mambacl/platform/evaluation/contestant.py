"""What is evaluated: a trained model or an untrained reference, on the task family of some experiment."""

import functools
import hashlib
import json

import torch

from mambacl.learners.learner import Learner
from mambacl.learners.registry import LearnerConfig
from mambacl.learners.registry import build as build_learner
from mambacl.platform.training.checkpoint import Checkpoint
from mambacl.tasks.config import Config, ConfigError
from mambacl.tasks.family import Family
from mambacl.tasks.registry import TaskConfig
from mambacl.tasks.registry import build as build_family


class Contestant(Config):
    """A learner with weights from a checkpoint folder, or without any (nearest mean)."""

    label: str
    """Its name in tables and figures."""
    learner: LearnerConfig
    weights: str | None
    """Checkpoint folder, on storage that all nodes share."""
    sha256: str
    """Identifies weights and config: results are kept under it."""

    @classmethod
    def trained(cls, label: str, checkpoint: Checkpoint) -> "Contestant":
        """The model of a checkpoint folder. Raises ConfigError where its files are not what its manifest says."""
        if fault := checkpoint.fault():
            raise ConfigError(f"{checkpoint.path}: refused, {fault}")
        return cls(
            label=label, learner=checkpoint.config.learner, weights=str(checkpoint.path), sha256=checkpoint.sha256
        )

    @classmethod
    def reference(cls, learner: LearnerConfig) -> "Contestant":
        """A learner that needs no meta-training."""
        digest = hashlib.sha256(learner.model_dump_json().encode()).hexdigest()
        return cls(label=learner.name, learner=learner, weights=None, sha256=digest)

    def load(self, family: Family) -> Learner:
        """The learner, ready to answer. Raises ConfigError where it was trained for another kind of family."""
        learner = build_learner(self.learner, family.spec).eval()
        if self.weights is not None:
            learner.load_state_dict(_checked_weights(self.weights, self.sha256))
        return learner


def _checked_weights(path: str, sha256: str) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.model_validate({"path": path})
    if (fault := checkpoint.fault()) or checkpoint.sha256 != sha256:
        raise ConfigError(f"{path}: refused, {fault or 'it holds another model'}")
    return checkpoint.weights


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
