"""Config of the sine family."""

from typing import Annotated, Literal

from pydantic import Field

from mambacl.tasks.family_config import FamilyConfig


class SineConfig(FamilyConfig):
    """Phase-shifted sines: each task maps one phase to another at its own frequency (Lee et al., 2023)."""

    name: Literal["sine"] = "sine"
    """Which task family."""
    tasks: Annotated[int, Field(ge=1)] = 100
