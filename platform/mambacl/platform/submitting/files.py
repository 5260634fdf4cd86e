"""The YAML files that a command names, and those that they are based on, as a job finds them in its working directory."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mambacl.platform.overrides import read_yaml, shipped


def gather(sources: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(name in the job by name here, text by name in the job) of all files among `sources` and their bases.

    Names of presets and studies that ship with the package are no files. Wherever a file lies, the job has it at hand.
    """
    packaged = shipped("presets").keys() | shipped("studies").keys()
    names: dict[str, str] = {}
    contents: dict[str, Any] = {}
    waiting = list(sources)
    while waiting:
        source = waiting.pop(0)
        if source in names or source in packaged or not Path(source).is_file():
            continue
        stem = Path(source).stem.lstrip(".")
        names[source] = f"{stem}-{len(names)}.yaml" if f"{stem}.yaml" in names.values() else f"{stem}.yaml"
        contents[source] = read_yaml(source, {}, "experiment")
        waiting += _bases(contents[source])
    texts = {
        names[source]: yaml.safe_dump(_renamed(content, names), sort_keys=False) for source, content in contents.items()
    }
    return names, texts


def _bases(content: Any) -> Iterator[str]:
    """Every `base` in a file: of an experiment or study, of the experiments, families and sizes in it."""
    if isinstance(content, Mapping):
        for field, value in content.items():
            if field == "base" and isinstance(value, str):
                yield value
            yield from _bases(value)


def _renamed(content: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(content, Mapping):
        return content
    return {
        field: names.get(value, value) if field == "base" and isinstance(value, str) else _renamed(value, names)
        for field, value in content.items()
    }
