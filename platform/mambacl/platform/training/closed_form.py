"""Runs whose learner has nothing to meta-train: its few numbers are chosen on meta-val."""

from mambacl.learners.learner import Learner
from mambacl.learners.objective import higher_is_better
from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.validate import Validation, validate
from mambacl.platform.training.worker import Worker
from mambacl.tasks.family import Family


def at_its_best(
    config: ExperimentConfig, family: Family, worker: Worker, parts: int = 1
) -> tuple[ExperimentConfig, Learner, Validation]:
    """The experiment with the candidate of its learner that scores best on meta-val, that learner, and its scores. Fields that the
    experiment sets are not chosen, and of equal candidates the first is taken.

    parts: those that a batch is cut into.
    """
    sign = 1 if higher_is_better(family.spec.output) else -1
    best: tuple[ExperimentConfig, Learner, Validation] | None = None
    for candidate in config.learner.candidates(config.learner.model_fields_set):
        learner = build_learner(candidate, family.spec).to(worker.device)
        found = validate(learner, family, config, worker, parts)
        if best is None or sign * found.point["meta_val/score"] > sign * best[2].point["meta_val/score"]:
            best = config.model_copy(update={"learner": candidate}), learner, found
    assert best is not None
    return best
