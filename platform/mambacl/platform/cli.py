"""The command `mambacl`: finds the command's module and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 1 the work failed, 2 the command line or the config is wrong, 130 stopped by Ctrl-C.
"""

import importlib
import os
import sys

COMMANDS = {
    "train": "meta-train one learner",
    "sweep": "search an experiment's hyper-parameters, register and evaluate the best model",
    "study": "train several experiments and set them side by side",
    "report": "write a finished study's page, pictures and tables anew",
    "lineup": "resize learners to equal parameters, state or FLOPs, and show what they cost",
    "resume": "finish a sweep that was interrupted",
    "submit": "run one of these commands as a job of a cluster",
    "evaluate": "evaluate registered models, runs or checkpoints",
    "list": "list presets, studies, learners, tasks, models, runs or sweeps",
    "show": "dry run: resolved config, parameters, state, FLOPs, memory",
    "sync": "deliver to MLflow what it has not got yet",
    "bench": "measure how fast this installation is on this machine",
    "doctor": "check this installation: versions, devices, kernels",
}

USAGE = (
    "usage: mambacl COMMAND [ARGUMENTS]\n\n"
    "Meta-train sequence models to be continual learners, and find out which one is best.\n\n"
    + "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
    + "\n\nmambacl COMMAND --help lists what a command takes."
)


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    sys.exit(run(arguments[0], arguments[1:]))


def run(command: str, arguments: list[str]) -> int:
    """Execute a command; returns its exit code."""
    from mambacl.tasks.config import ConfigError, nearest

    if command not in COMMANDS:
        return _fail(f"no command {command!r}{nearest(command, list(COMMANDS))}; commands: {', '.join(COMMANDS)}", 2)
    module = importlib.import_module(f"mambacl.platform.commands.{command}")
    try:
        return module.main(arguments) or 0
    except ConfigError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except Exception as error:
        if os.environ.get("MAMBACL_TRACEBACK"):
            raise
        return _fail(f"{error} ({type(error).__name__}; MAMBACL_TRACEBACK=1 shows where)", 1)


def _fail(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"mambacl: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
