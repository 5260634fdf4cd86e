"""`mambacl report`: the page of a finished study, with its pictures and tables, written anew from what is in its folder."""

import dataclasses
from typing import Annotated

import tyro

from mambacl.platform.arguments import parse_options
from mambacl.platform.config import StorageConfig
from mambacl.platform.console import json_line


@dataclasses.dataclass(frozen=True)
class Options:
    study: tyro.conf.Positional[str]
    """Name of the study's folder, such as omniglot or regularisation.cpu, or its path."""
    storage: StorageConfig = StorageConfig()
    """Where runs are kept."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    options = parse_options("report", Options, arguments)
    from mambacl.platform.studying.report import report

    result = report(options.study, options.storage)
    if options.as_json:
        json_line(result)
    return 0
