"""Episodes along the training: curriculum stages, then the family's own size."""

from typing import Any

from mambacl.platform.config import ExperimentConfig, Length
from mambacl.tasks.randomness import generator


def lengths(config: ExperimentConfig, step: int) -> dict[str, Any]:
    """What the episodes of a training step have in place of the family's own, as arguments of `Family.varied`; ranges are
    drawn by seed and step, so that all workers and every repetition agree."""
    stage = next((stage for stage in config.train.curriculum if stage.until is None or step < stage.until), None)
    if stage is None:
        return {}
    rng = generator(config.seed, "lengths", step)

    def draw(length: Length | tuple[Length, Length] | None) -> int | None:
        return int(rng.integers(length[0], length[1] + 1)) if isinstance(length, tuple) else length

    changes = {} if stage.query_after is None else {"query_after": stage.query_after}
    stream = config.task.stream.model_copy(update=changes)
    return {"tasks": draw(stage.tasks), "shots": draw(stage.shots), "stream": stream}
