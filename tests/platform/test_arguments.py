"""The command line: overrides, defaults of another learner, one line for each mistake, help that is fast."""

import subprocess
import sys

import pytest

from mambacl.learners.mixers.attention_config import AttentionConfig
from mambacl.platform.arguments import parse_experiment
from mambacl.platform.commands.show import Options
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.overrides import flatten, load, presets, vary
from mambacl.tasks.config import ConfigError, parse


def experiment(*arguments):
    return parse_experiment("show", Options, list(arguments))[0]


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_a_valid_experiment(name):
    config = parse(ExperimentConfig, load(name))
    assert config.name == name
    for field, dimension in config.search.items():
        low = next(
            value for value in (dimension.log, dimension.float, dimension.int, dimension.choice) if value is not None
        )[0]
        assert vary(config, {field: low}) != config or flatten(config.model_dump())[field] == low


def test_fields_are_overridden_by_dotted_names():
    config = experiment(
        "omniglot", "--learner.state_size", "64", "--train.curriculum.0.until", "7", "--task.path=x.npz"
    )
    assert config.learner.state_size == 64
    assert config.train.curriculum[0].until == 7
    assert config.task.path == "x.npz"
    assert config.learner.width == parse(ExperimentConfig, load("omniglot")).learner.width


def test_a_field_of_a_section_that_is_off_turns_it_on():
    config = experiment("quickstart", "--task.noise.site", "token", "--task.noise.strength=2", "--seed", "3")
    assert (config.task.noise.site, config.task.noise.strength, config.task.noise.target) == ("token", 2, "both")
    assert config.seed == 3
    assert experiment("quickstart", "--task.augment.turns", "false").task.augment.degrees == 15
    for wrong, line in (
        (("--task.noise.strength", "2"), r"^task\.noise\.site: missing$"),
        (("--task.noise.sight", "token"), r"task\.noise\.sight: unknown field \(did you mean 'site'\?\)"),
    ):
        with pytest.raises(ConfigError, match=line):
            experiment("quickstart", *wrong)


def test_lists_and_mappings_are_written_as_yaml():
    curriculum = "[{until: 7, tasks: [2, 4]}]"
    config = experiment(
        "omniglot", "--train.curriculum", curriculum, "--search={learner.width: {int: [8, 16]}}", "--seed", "3"
    )
    assert [(stage.until, stage.tasks) for stage in config.train.curriculum] == [(7, (2, 4))]
    assert config.search["learner.width"].int == (8, 16)
    assert config.seed == 3
    assert experiment("omniglot", "--train.curriculum", "[]").train.curriculum == ()


def test_naming_another_learner_takes_its_defaults():
    config = experiment("omniglot", "--learner.name", "attention", "--learner.heads", "2")
    assert config.learner == AttentionConfig(heads=2)


def test_naming_the_same_learner_keeps_the_fields_of_the_file():
    assert experiment("quickstart", "--learner.name", "mamba") == experiment("quickstart")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["omni"],
            "experiment: no preset or file 'omni' (did you mean 'omniglot'?); presets: emoji, grocery, kanji, omniglot, ",
        ),
        ([], "show: needs the name of a preset or a YAML file"),
        (["omniglot", "--learner.nme", "x"], "learner.nme: unknown field (did you mean 'name'?); allowed: "),
        (["omniglot", "--learner.name", "mambo"], "learner.name: unknown 'mambo' (did you mean 'mamba'?); allowed: "),
        (["omniglot", "--learner.state_size", "-3"], "learner.state_size: must be greater than or equal to 1, got -3"),
        (["omniglot", "--train.steps", "abc"], "train.steps: must be a valid integer"),
        (["omniglot", "--train.schedule", "foo"], "train.schedule: must be 'cosine', 'step' or 'constant', got 'foo'"),
        (["omniglot", "--train.steps"], "Missing value for argument '--train.steps'"),
        (["omniglot", "stray"], "Unrecognized options: stray"),
        (["omniglot", "--learner.delta", "[0.03,"], "learner.delta: '[0.03,' is not plain YAML"),
        (["quickstart", "--learner.name", "attention", "--learner.heads", "3"], "learner: heads = 3 must divide width"),
    ],
)
def test_mistakes_are_one_line(arguments, line):
    with pytest.raises(ConfigError) as caught:
        experiment(*arguments)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("name: [", "experiment: .* is not plain YAML"),
        ("- a", "experiment: .* must be a mapping of fields, got list"),
        ("name: !!python/object/apply:os.system ['touch canary']", "experiment: .* is not plain YAML"),
        ("name: a/b", "name: must"),
        ("{name: x, search: {learner.width: {log: [0, 1]}}}", "search.learner.width: log needs low <= high, above 0"),
        (
            "{name: x, search: {learner.width: {}}}",
            "search.learner.width: needs exactly one of log, float, int, choice",
        ),
        ("{name: x, train: {curriculum: [{until: 5}, {until: 3}]}}", "train: curriculum: `until` must rise"),
        ("{name: x, train: {batch: 5, accumulate: 2}}", "train: accumulate = 2 must divide batch = 5"),
        ("{name: x, resources: {workers: 2, gpus: 0.5}}", "resources: gpus: several workers need whole GPUs"),
        (
            "{name: x, storage: {study_uri: 'postgresql://me:canary@host/optuna'}}",
            "storage.study_uri: holds a password, which every run would keep; .* as MAMBACL_STUDY_URI$",
        ),
        (
            "{name: x, storage: {tracking_uri: 'https://me:canary@host'}}",
            "storage.tracking_uri: holds a password, .* as MLFLOW_TRACKING_PASSWORD$",
        ),
    ],
)
def test_mistakes_of_a_file_are_one_line(tmp_path, content, line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError, match=line) as caught:
        experiment("mine.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_the_digest_is_of_what_decides_the_weights():
    config = experiment("quickstart")
    assert (
        config.digest == experiment("quickstart", "--storage.root", "/x", "--name", "y", "--resources.cpus", "2").digest
    )
    assert config.digest != experiment("quickstart", "--seed", "1").digest
    assert config.digest != experiment("quickstart", "--selectivity.weight", "0.7").digest


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["sweep", "omniglot", "--help"], ["evaluate", "--help"], ["submit", "--help"]],
)
def test_help_needs_none_of_the_slow_libraries(arguments):
    """What makes help fast: neither torch nor Ray nor MLflow is imported for it."""
    code = f"""
import sys
sys.argv = ["mambacl", *{arguments!r}]
from mambacl.platform.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
slow = {{"torch", "ray", "mlflow", "optuna", "numba", "pandas", "matplotlib"}} & set(sys.modules)
assert not slow, slow
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "usage: mambacl" in child.stdout


@pytest.mark.parametrize(
    ("arguments", "code"), [(["trian"], 2), ([], 2), (["train", "nowhere"], 2), (["list", "--help"], 0)]
)
def test_exit_codes(arguments, code):
    child = subprocess.run(
        [sys.executable, "-m", "mambacl.platform.cli", *arguments], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == code
    assert "Traceback" not in child.stderr


def test_a_file_builds_on_its_base(tmp_path):
    """Sections are changed field by field, another learner takes its own defaults, and circles are refused."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: omniglot\nname: mine\nlearner: {name: kda, width: 64}\ntrain: {steps: 7}\n")
    config, base = experiment(str(mine)), experiment("omniglot")
    assert (config.name, config.train.steps, config.train.batch) == ("mine", 7, base.train.batch)
    assert (config.learner.name, config.learner.width, config.learner.state_size) == ("kda", 64, 32)
    assert config.task == base.task
    mine.write_text(f"base: {mine}\n")
    with pytest.raises(ConfigError, match=r"^base: must be the name of another preset or file"):
        load(str(mine))
