"""The task families by name. Torch-free: a family's code is imported when one is built."""

import importlib
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mambacl.tasks.config import parse
from mambacl.tasks.images_config import DatasetConfig, GlyphsConfig, ImagesConfig
from mambacl.tasks.recall_config import RecallConfig
from mambacl.tasks.sine_config import SineConfig

if TYPE_CHECKING:
    from mambacl.tasks.family import Family

TaskConfig = Annotated[
    ImagesConfig | DatasetConfig | GlyphsConfig | SineConfig | RecallConfig, Field(discriminator="name")
]

BUILDERS = {
    "images": "mambacl.tasks.images:build_images",
    "dataset": "mambacl.tasks.images:build_images",
    "glyphs": "mambacl.tasks.images:build_images",
    "sine": "mambacl.tasks.sine:SineFamily",
    "recall": "mambacl.tasks.recall:RecallFamily",
}


def build(config: dict[str, Any] | TaskConfig) -> "Family":
    """The task family that a config or a mapping like one describes.

    Raises ConfigError (a ValueError) with one line a mistake: an unknown name or field, data that cannot be read,
    fewer classes or images than an episode needs.
    """
    chosen: TaskConfig = parse(TaskConfig, config, "task")
    module, name = BUILDERS[chosen.name].split(":")
    return getattr(importlib.import_module(module), name)(chosen).check()
