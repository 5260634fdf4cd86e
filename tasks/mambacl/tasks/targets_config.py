"""Config of what is asked of an image."""

from typing import Literal, Self

from pydantic import model_validator

from mambacl.tasks.family_config import FamilyConfig, Objective

OUTPUTS: dict[str, Objective] = {"class": "classification", "rotation": "angle", "completion": "regression"}


class TargetConfig(FamilyConfig):
    """What every image family can ask of its images."""

    target: Literal["class", "rotation", "completion"] = "class"
    """What is asked of an image: the label code of its class; by what angle it was turned, from turned examples of its
    class (`augment` then turns nothing); or its lower half, given the upper one (both from Lee et al., 2023)."""
    offset_mode: Literal["none", "label"] = "none"
    """For rotation: labels are the images' angles, or those plus an angle that each task keeps to itself."""

    @property
    def output(self) -> Objective:
        return OUTPUTS[self.target]

    @model_validator(mode="after")
    def _offset_of_an_angle(self) -> Self:
        if self.offset_mode != "none" and self.target != "rotation":
            raise ValueError(f"offset_mode: {self.offset_mode!r} needs target = rotation, got {self.target}")
        return self
