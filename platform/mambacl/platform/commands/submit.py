"""`mambacl submit`: run another command as a job of a cluster."""

import dataclasses
from typing import Annotated

import tyro

from mambacl.platform.arguments import UsageError, parse_options
from mambacl.platform.console import json_line


@dataclasses.dataclass(frozen=True)
class Options:
    """The command and all that belongs to it stand after --, as in: mambacl submit --wait -- sweep quickstart. What is edited
    in this checkout goes along; a job that is at work on the sweep already is what `-- resume NAME` attaches to."""

    address: str | None = None
    """Job server of the cluster, http://HEAD:8265; default: the environment's RAY_API_SERVER_ADDRESS or RAY_ADDRESS."""
    wait: bool = False
    """Follow the job's log to its end, and exit with its code. Ctrl-C asks whether to stop the job, too."""
    dry_run: bool = False
    """Show what would be submitted, and the `ray job submit` line that does the same."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""


def main(arguments: list[str]) -> int:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    if cut == len(arguments) and not {"-h", "--help"} & set(arguments):
        raise UsageError("submit: the command stands after --, as in: mambacl submit --wait -- sweep quickstart")
    options = parse_options("submit", Options, arguments[:cut])
    from mambacl.platform.submitting.command import submit

    result, code = submit(arguments[cut + 1 :], options.address, options.wait, options.dry_run)
    if options.as_json:
        json_line(result)
    return code
