"""Every study that ships, in every size: it can start, it is what it says it is, and it costs what someone can pay.

Nothing is trained. The data are stand-ins with the true numbers of classes and images.
"""

import functools

import numpy as np
import pytest
import torch

from mambacl.platform.config import ExperimentConfig
from mambacl.platform.overrides import load, read_yaml, shipped
from mambacl.platform.studying import command
from mambacl.platform.studying.config import entries_of, find_study
from mambacl.platform.studying.devices import SUSTAINED
from mambacl.platform.studying.plan import hours
from mambacl.platform.sweeping.plan import expected_steps, first_rung
from mambacl.tasks.bank import ImageBank
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.images import ImageFamily
from mambacl.tasks.images_config import DatasetConfig, ImagesConfig
from mambacl.tasks.labels import Labels
from mambacl.tasks.registry import build as build_family
from mambacl.tasks.standins import standin

STUDIES = [
    (name, size)
    for name in sorted(shipped("studies"))
    for size in read_yaml(name, shipped("studies"), "study").get("sizes", [None])
]
PAPER = [(name, size) for name, size in STUDIES if size in ("paper", "20x5", "100x5")]
CPU = [(name, size) for name, size in STUDIES if size in (None, "cpu")]
GPU_DAYS = 60
"""That a size for GPUs may take."""
MINUTES = 45
"""That a size for this machine may take, on two cores."""

METHOD = {
    "optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 0, "schedule": "step", "halve_every": 10_000, "warmup": 0,
    "steps": 50_000, "batch": 16, "clip": None, "precision": "float32", "evaluate_every": 1000, "evaluate_episodes": 1024,
    "curriculum": (), "state_passing": 0, "patience": None,
}  # fmt: skip
"""The recipe of Lee et al. (2023), which the paper follows, as fields of `train`."""

FILES = {
    # Of each class so many images, group by group, or in each domain; channels.
    "omniglot_background_32.npz": {"classes": 964, "images": 17, "groups": 30, "channels": 1},
    "kanji_fonts_32.npz": {"classes": 1200, "images": 1, "channels": 1, "domains": (
        "bkai", "bsmi", "ukai", "uming", "cwfs", "cwheib", "cwkai", "cwming", "cwyen", "ipag", "ipam", "kouzanT", "soseki", "dejima",
        "kiloji", "kiloji_b", "komatuna", "konatu", "sousyo", "gyosho", "mouhitsu", "monapo", "motoya_c", "motoya_m", "sawarabi_g",
        "sawarabi_m", "seto", "umeplus", "vlgothic", "wqy_micro", "wqy_zen")},
    "emoji_styles_32.npz": {"classes": 1058, "images": 1, "channels": 3, "domains": (
        "twemoji", "openmoji", "noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "emojione",
        "emojione-v1", "emojione-monotone")},
    "grocery": {"classes": 81, "images": 35, "channels": 3},
}  # fmt: skip
"""What the files hold that studies for CPUs name."""


@functools.cache
def family_of_file(task: str) -> ImageFamily:
    config = ImagesConfig.model_validate_json(task)
    facts = FILES[config.path]
    domains = facts.get("domains", ("",))
    label = np.arange(facts["classes"]).repeat(facts["images"] * len(domains))
    domain = np.tile(np.array(domains), facts["classes"]) if "domains" in facts else None
    group = label % facts["groups"] if config.group else None
    labels, _ = Labels.of(label, group, domain)
    shape = (1280,) if config.encoder else (facts["channels"], 32, 32)
    kind = torch.float16 if config.encoder else torch.uint8
    images = torch.zeros(1, *shape, dtype=kind).expand(len(label), *shape)
    return ImageFamily(config, ImageBank.with_labels(images, labels, "x")).check()


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    def family_of(task):
        if isinstance(task, DatasetConfig):
            return standin(task)
        return family_of_file(task.model_dump_json()) if isinstance(task, ImagesConfig) else build_family(task)

    monkeypatch.setattr(command, "stand_in", family_of)


@functools.cache
def planned(name, size):
    return command.planned_on(find_study(name, size), {})


@pytest.mark.parametrize(("name", "size"), STUDIES)
def test_it_can_start_and_says_what_each_experiment_answers(name, size, capsys):
    plan, device = planned(name, size)
    study = find_study(name, size)
    assert study.name == (f"{name}.{size}" if size else name)
    assert study.question
    assert all(one.entry.answers for one in plan)
    trained = [one for one in plan if one.size.parameters]
    assert len(trained) == len(plan)
    assert all(one.steps >= one.entry.experiment.train.steps for one in plan)
    told = command.show(study, plan, device)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"hours of one {device}" in printed
    assert study.question in printed
    assert told.keys() == {one.entry.group for one in plan}


@pytest.mark.parametrize(("name", "size"), PAPER)
def test_a_size_for_gpus_is_the_papers_recipe_and_under_60_days(name, size):
    plan, device = planned(name, size)
    assert device == "h100"
    assert hours(plan, device) < 24 * GPU_DAYS
    study = find_study(name, size)
    varied = {field.removeprefix("train.") for field in study.vary}
    short = {"steps", "evaluate_every", "evaluate_episodes"} if name == "efficiency" else set()
    for one in plan:
        experiment = one.entry.experiment
        train = experiment.train
        assert {field: getattr(train, field) for field in METHOD if field not in varied | short} == {
            field: value for field, value in METHOD.items() if field not in varied | short
        }
        assert experiment.task.queries == 5
        assert experiment.task.shots == 5
        if isinstance(experiment.task, DatasetConfig) and experiment.task.target == "class":
            assert experiment.task.encoder.frozen == "open_clip/ViT-B-32", "the paper's input"
        if any(suite.name == "length" for suite in study.asked):
            assert experiment.task.codes >= 100, "streams longer than trained have codes"
    assert study.search is None or study.search.grace >= 5000, "the first rung lies past the plateau"


def test_values_are_asked_at_a_hundred_tasks():
    assert {e.experiment.task.tasks for e in entries_of(find_study("regression", "paper"), {})} == {100}
    assert {e.experiment.task.tasks for e in entries_of(find_study("paper", "100x5"), {})} == {100}


def test_the_preset_of_the_paper_is_its_recipe():
    experiment = parse(ExperimentConfig, load("paper"))
    assert {field: getattr(experiment.train, field) for field in METHOD} == METHOD
    assert (experiment.task.tasks, experiment.task.shots, experiment.task.queries) == (20, 5, 5)


@pytest.mark.parametrize(("name", "size"), CPU)
def test_a_size_for_this_machine_is_short(name, size):
    plan, _ = planned(name, size)
    assert hours(plan, "cpu") / 2 * 60 < (MINUTES if size else 90)


@pytest.mark.parametrize(("name", "size"), STUDIES)
def test_the_two_transformers_stand_apart(name, size):
    kinds = {entry.experiment.learner.name for entry in entries_of(find_study(name, size), {})}
    assert "attention" not in kinds or "transformer" in kinds


def test_families_of_a_size_with_a_base_of_its_own_are_its_own():
    def families(name):
        return set(find_study(name, "paper").families)

    assert families("regression") == {"sine", "rotation", "completion"}
    assert families("shift") == {"clipart", "infograph", "painting", "quickdraw", "real", "sketch"}
    assert families("fine_grained") == {"cub200", "dogs", "cars", "aircraft"}
    assert sum(e.experiment.train.steps for e in entries_of(find_study("efficiency", "paper"), {})) < 1000


def test_expected_steps_are_those_of_halving():
    search = {"trials": 8, "grace": 100, "reduction": 2}
    experiment = parse(ExperimentConfig, {"name": "a", "train": {"steps": 400}, "sweep": search})
    assert first_rung(experiment) == 100
    assert expected_steps(experiment) == 8 * 100 + 4 * 100 + 2 * 200
    default = parse(ExperimentConfig, {"name": "a", "train": {"steps": 400}, "sweep": {"trials": 1}})
    assert first_rung(default) == 100


def test_devices_have_names():
    assert {"cpu", "a100", "h100"} <= SUSTAINED.keys()
    with pytest.raises(ConfigError, match="no 'smal'"):
        find_study("length", "smal")
