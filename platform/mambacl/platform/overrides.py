"""Experiments from files, presets and dotted overrides."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mambacl.platform.config import ExperimentConfig
from mambacl.tasks.config import ConfigError, nearest, parse

NAMED = ("task", "learner")
"""Sections whose `name` decides their other fields."""
SECTIONS = (*NAMED, "selectivity", "train", "sweep", "resources", "storage")
"""Sections that a file changes field by field on top of its base; anything else it replaces."""


def shipped(kind: str) -> dict[str, str]:
    """YAML texts that ship with the package in the folder of that kind, by name."""
    folder = resources.files("mambacl.platform") / kind
    return {
        file.name.removesuffix(".yaml"): file.read_text() for file in folder.iterdir() if file.name.endswith(".yaml")
    }


def presets() -> dict[str, str]:
    """The experiments that ship with the package: YAML text by name."""
    return shipped("presets")


def load(source: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The mapping of a preset's name or a YAML file's path, on top of that of its `base` where it names one.

    Raises ConfigError for anything else.
    """
    content = read_yaml(source, presets(), "experiment")
    if (base := content.pop("base", None)) is None:
        return content
    if not isinstance(base, str) or base in (*above, source):
        raise ConfigError(f"base: must be the name of another preset or file, got {base!r} in {source}")
    changes: dict[str, Any] = {}
    for name, value in content.items():
        fields = value if name in SECTIONS and isinstance(value, Mapping) else None
        changes |= {name: value} if fields is None else {f"{name}.{field}": fields[field] for field in fields}
    return override(load(base, (*above, source)), changes)


def read_yaml(source: str, known: Mapping[str, str], kind: str) -> dict[str, Any]:
    """The mapping in a YAML file, or in the text that is known by this name.

    kind: what is looked for, such as experiment. Raises ConfigError where there is none, or no mapping.
    """
    if source in known:
        text = known[source]
    elif Path(source).is_file():
        text = Path(source).read_text()
    else:
        names = sorted(known)
        raise ConfigError(f"{kind}: no preset or file {source!r}{nearest(source, names)}; presets: {', '.join(names)}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{kind}: {source} is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{kind}: {source} must be a mapping of fields, got {type(content).__name__}")
    return content


def override(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with values put at dotted names. Naming another learner or task takes that one's defaults."""
    result = dict(content)
    for section in NAMED:
        if (name := changes.get(f"{section}.name")) and name != (result.get(section) or {}).get("name"):
            result[section] = {"name": name}
    for dotted, value in changes.items():
        _put(result, dotted.split("."), value, dotted)
    return result


def vary(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with other values at dotted names. Raises ConfigError where one does not fit."""
    return parse(ExperimentConfig, override(config.model_dump(mode="json", exclude_unset=True), changes))


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _put(content: dict[str, Any], path: list[str], value: Any, dotted: str) -> None:
    *folders, last = path
    for folder in folders:
        inner = content.get(folder)
        if inner is not None and not isinstance(inner, Mapping):
            raise ConfigError(f"{dotted}: {folder} has no fields")
        content[folder] = dict(inner or {})
        content = content[folder]
    content[last] = value
