"""Config of the selectivity regularisation."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.config import Config


class SelectivityConfig(Config):
    """The pull of a query's associations toward support examples of its own task (the paper's section 3)."""

    loss: Literal["none", "mass", "kl"] = "kl"
    """kl: divergence from the even spread over those tokens; mass: -log of the share on them, however spread."""
    weight: Annotated[float, Field(ge=0)] = 0.5
    """Its weight beside the task loss."""
    layers: Literal["last", "all"] | tuple[int, ...] = "last"
    """Which layers are pulled; numbers count from 0, negative ones from the last."""
    tokens: Literal["label", "input", "both"] = "label"
    """Which tokens of an example take part: the row is normalised over these alone."""
    normalisation: Literal["softmax", "linear"] | None = None
    """Rows as softmax of the scores, or as their magnitudes divided by the row's sum; default: as the learner reads."""
    heads: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the heads that is pulled, the first ones (the ancestors took 0.5)."""
    from_step: Annotated[int, Field(ge=0)] = 0
    """First training step with the term."""
    until_step: Annotated[int, Field(ge=1)] | None = None
    """First training step without it again; by default it stays."""

    def active(self, step: int) -> bool:
        """Whether the term takes part in this training step."""
        on = self.loss != "none" and self.weight > 0
        return on and self.from_step <= step and (self.until_step is None or step < self.until_step)
