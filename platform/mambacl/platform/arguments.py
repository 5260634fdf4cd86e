"""Command lines: an experiment by name or file, then dotted overrides and the command's own options, parsed by tyro."""

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Generic, TypeVar

import tyro
import yaml

from mambacl.platform.cli import COMMANDS
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.overrides import NAMED, load, override
from mambacl.tasks.config import ConfigError, parse

O = TypeVar("O")
"""Options of a command: a dataclass."""

FORMAT = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


@dataclasses.dataclass(frozen=True)
class _Together(Generic[O]):
    """A command's options beside the fields of an experiment, both without a prefix of their own."""

    options: Annotated[O, tyro.conf.arg(name="")]
    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]


class UsageError(ConfigError):
    """A command line that cannot be understood; one line."""


def parse_options(command: str, kind: type[O], arguments: Sequence[str]) -> O:
    """Options of a command that takes no experiment."""
    return _tyro(command, kind, None, arguments)


def parse_experiment(command: str, kind: type[O], arguments: Sequence[str]) -> tuple[ExperimentConfig, O]:
    """The experiment named by the first argument with the overrides after it, and the command's own options.

    Raises ConfigError with a line for each mistake.
    """
    asks_help = bool({"-h", "--help"} & set(arguments))
    source, rest = (
        (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    )
    if source is None and not asks_help:
        raise UsageError(f"{command}: needs the name of a preset or a YAML file, as in: mambacl {command} quickstart")
    content = load(source or "quickstart")
    given = _pairs(rest)
    # The sections' kinds decide which fields there are, so they are settled before tyro lists the fields.
    kinds = {name: given[name] for section in NAMED if (name := f"{section}.name") in given}
    # Lists and mappings are written as YAML, as in --train.curriculum '[{until: 100, tasks: 5}]'.
    written = [name for name, value in given.items() if value.startswith(("[", "{"))]
    # What stands beside them in a section is read with them: the mixers of a hybrid have to fit its width.
    beside = {name.rpartition(".")[0] for name in written if "." in name}
    nested = {name: _plain(name, given[name]) for name in given if name in written or name.rpartition(".")[0] in beside}
    content = override(content, kinds | nested)
    # Sections that are off have no fields for tyro: a value for one of their fields turns them on.
    off = parse(ExperimentConfig, content)
    opened = {name: _plain(name, value) for name, value in given.items() if _is_off(off, name)}
    default = parse(ExperimentConfig, override(content, opened)) if opened else off
    rest = _without(rest, nested | opened)
    form = _Together[kind]  # type: ignore[valid-type]
    try:
        together = _tyro(f"{command} {source or 'EXPERIMENT'}", form, form(options=kind(), experiment=default), rest)
    except UsageError:
        # Where the config's own check names the mistake, its line is the clearer one.
        fields = {
            name: _plain(name, value)
            for name, value in given.items()
            if name.split(".")[0] in ExperimentConfig.model_fields
        }
        parse(ExperimentConfig, override(content, fields))
        raise
    from mambacl.platform.data.own_encoders import with_own_encoder  # loads torch, for which --help need not wait

    return with_own_encoder(together.experiment), together.options


def parse_study(kind: type[O], arguments: Sequence[str]) -> tuple[O, dict[str, Any]]:
    """Options of a command on several experiments, and the fields that are set in all of them, by dotted name."""
    sections = set(ExperimentConfig.model_fields) - {"storage"}
    fields = {
        name: value for name, value in _pairs(arguments).items() if name.split(".")[0] in sections and "." in name
    }
    changes = {name: _plain(name, value) for name, value in fields.items()}
    return parse_options("study", kind, _without(arguments, fields)), changes


def _plain(name: str, value: str) -> Any:
    """A value of the command line, read as YAML."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"{name}: {value!r} is not plain YAML") from None


def _is_off(experiment: ExperimentConfig, name: str) -> bool:
    """Whether the dotted name is a field of a section that is null."""
    section: Any = experiment
    for part in name.split(".")[:-1]:
        if section is None or not hasattr(section, part):
            break
        section = getattr(section, part)
    return section is None


def _pairs(arguments: Sequence[str]) -> dict[str, str]:
    """The `--a.b value` and `--a.b=value` pairs of a command line."""
    pairs: dict[str, str] = {}
    for word, following in itertools.pairwise([*arguments, "--"]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if equals or not following.startswith("--"):
                pairs[name.replace("-", "_")] = value if equals else following
    return pairs


def _without(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """The command line less these options and their values."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.replace("-", "_") not in names:
            kept.append(word)
        elif not equals:
            next(words)
    return kept


def _tyro(command: str, kind: Any, default: Any, arguments: Sequence[str]) -> Any:
    """Parse with tyro; its boxed messages become one line."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(
                kind,
                prog=f"mambacl {command}",
                description=COMMANDS[command.split()[0]],
                args=list(arguments),
                config=FORMAT,
                use_underscores=True,
                **({} if default is None else {"default": default}),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(message.getvalue())) from None


def _one_line(box: str) -> str:
    """The text of tyro's message without its frame, up to the advice to read the help."""
    words = " ".join(re.sub(r"[╭╮╰╯│─┃━]+|-{3,}", " ", box).split())
    words = re.sub(r" ?For full helptext,.*", "", words)
    words = re.sub(r" ?For further information visit \S+", "", words)
    return re.sub(r"^(Unrecognized options|Invalid choice|Missing argument|Value error|Parsing error) ", "", words)
