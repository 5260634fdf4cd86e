"""A command line that is to run on a cluster: checked on this side, before anything is sent."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mambacl.platform.arguments import UsageError, parse_experiment, parse_options, parse_study
from mambacl.platform.commands import evaluate, resume, sweep, train
from mambacl.platform.commands import study as study_command
from mambacl.platform.config import ExperimentConfig, ResourcesConfig, StorageConfig
from mambacl.platform.overrides import load
from mambacl.platform.submitting.files import gather
from mambacl.platform.sweeping.plan import rivals_of, sweep_folder
from mambacl.tasks.config import ConfigError, nearest, parse
from mambacl.tasks.registry import TaskConfig

PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


@dataclasses.dataclass(frozen=True)
class Request:
    """A command that makes sense on a cluster."""

    name: str
    """Of the experiment, sweep or study."""
    sources: Sequence[str] = ()
    """What it is told to read: names of presets, or files on this side."""
    folder: Path | None = None
    """Where its driver works alone."""
    digest: str | None = None
    """Of its config."""
    resources: Sequence[ResourcesConfig] = ()
    """What its runs ask of the cluster."""
    words: Sequence[str] = ()
    """The command line, in the job's names of files."""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """YAML texts by their names in the job."""


def understand(words: Sequence[str]) -> Request:
    """The request of a command line such as `sweep quickstart --storage.root /shared/runs`.

    Raises ConfigError for what fails here already, and for what means something else on a cluster: paths of this
    machine, and passwords, which everybody who sees the cluster's dashboard could read.
    """
    if not words or words[0] not in COMMANDS:
        word = words[0] if words else ""
        raise UsageError(
            f"submit: cannot run {word!r}{nearest(word, list(COMMANDS))}; what can be: {', '.join(COMMANDS)}"
        )
    command, *arguments = words
    if any(word.partition("=")[0] == "--address" for word in arguments):
        raise UsageError(
            f"address: a job runs on the cluster that it is submitted to: mambacl submit --address URL -- {command}"
        )
    request = COMMANDS[command](arguments)
    names, texts = gather(request.sources)
    for text in (*words, *texts.values()):
        if found := PASSWORD.search(text):
            raise ConfigError(
                f"submit: {text[: found.start()].split()[-1]}://... holds a password, which all who see the dashboard could "
                "read; give it to the cluster's nodes as an environment variable"
            )
    return dataclasses.replace(request, words=[command, *(_renamed(word, names) for word in arguments)], files=texts)


def _train(arguments: list[str]) -> Request:
    experiment, options = parse_experiment("train", train.Options, arguments)
    _check_paths(experiment.storage, [experiment.task])
    folder = None if options.resume == "never" else train.first_folder(experiment)
    return Request(experiment.name, arguments[:1], folder, experiment.digest, [experiment.resources])


def _sweep(arguments: list[str]) -> Request:
    experiment, _ = parse_experiment("sweep", sweep.Options, arguments)
    runs = [experiment, *rivals_of(experiment).values()]
    _check_paths(experiment.storage, [run.task for run in runs])
    resources = [run.resources for run in runs]
    return Request(experiment.name, arguments[:1], sweep_folder(experiment), experiment.digest, resources)


def _study(arguments: list[str]) -> Request:
    options, changes = parse_study(study_command.Options, arguments)
    from mambacl.platform.studying.config import entries_of, find_study, study_folder

    config = find_study(options.name, options.size, options.fork)
    runs = [entry.experiment for entry in entries_of(config, changes, options.data)]
    _check_paths(options.storage, [run.task for run in runs])
    digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
    resources = [run.resources for run in runs]
    return Request(config.name, [options.name], study_folder(config, options.storage), digest, resources)


def _evaluate(arguments: list[str]) -> Request:
    options = parse_options("evaluate", evaluate.Options, arguments)
    from mambacl.platform.evaluation.suites.registry import find_suite

    find_suite(options.suite)
    on = parse(ExperimentConfig, load(options.on)) if options.on else None
    _check_paths(options.storage, [on.task] if on and options.task_path is None else [])
    folders = [model for model in options.models if not model.startswith(("models:", "runs:"))]
    for field, path in (("task.path", options.task_path), *(("models", folder) for folder in folders)):
        _check_path(field, path)
    name = options.models[0].removeprefix("models:/") if options.models else "nothing"
    return Request(name, [options.on] if options.on else [], resources=[ResourcesConfig(gpus=options.gpus)])


def _resume(arguments: list[str]) -> Request:
    options = parse_options("resume", resume.Options, arguments)
    _check_paths(options.storage, [])
    return Request(options.name, folder=Path(options.storage.root).resolve() / options.name)


COMMANDS: dict[str, Callable[[list[str]], Request]] = {
    "train": _train,
    "sweep": _sweep,
    "study": _study,
    "evaluate": _evaluate,
    "resume": _resume,
}


def _check_paths(storage: StorageConfig, tasks: Iterable[TaskConfig]) -> None:
    """Raise ConfigError where results or data would be looked for in the job's temporary folder."""
    if not Path(storage.root).is_absolute():
        raise ConfigError(
            f"storage.root: {storage.root!r} would lie in a temporary folder of the job; name one that all nodes share, by "
            "its whole path, as in --storage.root /shared/runs"
        )
    for task in tasks:
        if task.location is not None:
            _check_path(f"task.{task.location}", getattr(task, task.location))


def _check_path(field: str, path: str | None) -> None:
    if path is not None and "://" not in path and not Path(path).is_absolute():
        raise ConfigError(
            f"{field}: {path!r} starts from a folder of this machine; name what all nodes see, by its whole path or a URL"
        )


def _renamed(word: str, names: Mapping[str, str]) -> str:
    """A word of the command line that is a file, or ends with =FILE, in the job's names."""
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{names.get(value, value)}"
