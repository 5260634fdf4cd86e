"""Config of the sine family."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.family_config import FamilyConfig, Objective


class SineConfig(FamilyConfig):
    """Phase-shifted sines: each task maps one phase to another at its own frequency (Lee et al., 2023)."""

    name: Literal["sine"] = "sine"
    """Which task family."""
    tasks: Annotated[int, Field(ge=1)] = 100

    @property
    def output(self) -> Objective:
        return "regression"
