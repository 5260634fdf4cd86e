"""The config that long work was started with, kept in its folder: what goes on under a name is what was begun under it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mambacl.platform.overrides import flatten
from mambacl.tasks.config import ConfigError


def keep(
    snapshot: Path,
    content: Mapping[str, Any],
    what: str,
    changeable: tuple[str, ...],
    way_out: str = "choose another --name",
) -> None:
    """Write the config into the snapshot, unless it holds another one.

    what: such as "a sweep 'quickstart'"; changeable: beginnings of fields that may differ; way_out: what to do
    otherwise. Raises ConfigError with the
    fields that differ.
    """
    if snapshot.is_file():
        before, now = flatten(json.loads(snapshot.read_text())), flatten(content)
        changed = [
            f"{name} ({json.dumps(before.get(name))}, now {json.dumps(now.get(name))})"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and not name.startswith(changeable)
        ]
        if changed:
            raise ConfigError(f"name: {what} exists with another config: {'; '.join(changed)}; {way_out}")
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    draft = snapshot.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1))
    draft.rename(snapshot)
