"""Classes that a model met in meta-training are no test of it: they are known again under any seed, name and source, and asked
about apart."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from mambacl.learners.closed_form.configs import NearestMeanConfig
from mambacl.platform.config import ExperimentConfig, StorageConfig
from mambacl.platform.evaluation.cells import cells_of, compute
from mambacl.platform.evaluation.command import Asked, evaluate
from mambacl.platform.evaluation.contestant import Contestant, built_family
from mambacl.platform.evaluation.models import common_task
from mambacl.platform.evaluation.seen import MET, parts_of
from mambacl.platform.evaluation.suites.overfitting import Overfitting
from mambacl.platform.evaluation.suites.selectivity import Selectivity
from mambacl.platform.evaluation.suites.standard import Standard
from mambacl.platform.tracking.registry import find, register
from mambacl.platform.tracking.store import Store
from mambacl.platform.training import checkpoint
from mambacl.platform.training.bookkeeping import close_record, open_record
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse

TINY = {
    "name": "tiny",
    "learner": {"name": "prototypes", "width": 8, "encoder": {"name": "mlp"}},
    "train": {"steps": 1, "batch": 2, "evaluate_every": 1, "evaluate_episodes": 2},
}
SIZES = {"tasks": 3, "shots": 2, "queries": 1, "vocabulary": 7, "augment": None}
GLYPHS = {"name": "glyphs"}
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 4, 8, 8), np.uint8)
"""Images (classes, images, height, width)."""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A function that trains a model for a step on a task, and gives its run's folder."""
    monkeypatch.setenv("MAMBACL_CACHE", str(tmp_path / "cache"))

    def model(learner=TINY["learner"], **task):
        content = TINY | {"task": SIZES | task, "learner": learner, "storage": {"root": str(tmp_path)}}
        config = parse(ExperimentConfig, content)
        run = tmp_path / f"run {len(list(tmp_path.glob('run *')))}"
        open_record(config, run)
        meta_train(config, run, Worker(), lambda saved: None, lambda step, point: False)
        close_record(run, None)
        return run

    return model


@pytest.fixture
def parts(tmp_path):
    """A function that gives the parts in which models are asked about another task, and what is in doubt."""

    def of(*references, allow_seen=False, **task):
        experiment, storage = tmp_path / "on.yaml", StorageConfig(root=str(tmp_path))
        experiment.write_text(yaml.safe_dump(TINY | {"task": SIZES | task}))
        found = [find(str(reference), storage) for reference in references]
        asked = common_task(found, on=str(experiment))
        named = [(f"model {number}", reference) for number, reference in enumerate(found)]
        return parts_of(named, asked, "meta_test", allow_seen)

    return of


def npz(path, images=PIXELS):
    """The images as .npz, classes by number."""
    classes, count, *shape = images.shape
    np.savez(path, images=images.reshape(-1, *shape), label=np.arange(classes).repeat(count))
    return {"name": "images", "path": str(path)}


def folders(path):
    """The images as PNG files in a folder a class, whose names turn the order of the classes around."""
    for number, images in enumerate(PIXELS):
        folder = path / f"letter {99 - number}"
        folder.mkdir(parents=True)
        for place, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{place}.png")
    return {"name": "images", "path": str(path), "size": 8, "grey": True}


def data_set(path):
    """The images as the named data set Omniglot lies on a disk."""
    for number, images in enumerate(PIXELS):
        part = "images_background" if number < 30 else "images_evaluation"
        folder = path / "omniglot-py" / part / f"Alphabet {number % 20}" / f"character{number:02d}"
        folder.mkdir(parents=True)
        for place, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{place}.png")
    return {"name": "dataset", "dataset": "omniglot", "root": str(path), "size": 8, "splits": "seed"}


def images_of(split, **task):
    """The images of each class of a split, by its number."""
    family = built_family(parse(ExperimentConfig, TINY | {"task": SIZES | task}).task)
    return {c: {family.bank.images[i].numpy().tobytes() for i in family.bank.members(np.array([c]))[0]}
            for c in family.classes[split].tolist()}  # fmt: skip


def met_before(asked, learnt):
    """Numbers of the meta-test classes of one task whose images another one's splits have, but for meta-test."""
    known = {split: set().union(*images_of(split, **learnt).values()) for split in MET}
    found = images_of("meta_test", **asked)
    return {split: [c for c, images in found.items() if images & known[split]] for split in MET}, len(found)


def test_alphabets_of_which_another_seed_trained_on_are_refused(trained, parts, data):
    omniglot = {"name": "images", "path": str(data / "omniglot_background_32.npz"), "group": "alphabet"}
    with pytest.raises(
        ConfigError,
        match=r"^on: model 0 met 176 of the 216 classes of meta_test before "
        r"\(meta_train 83, meta_val 24, meta_confirm 69\), such as \d+, \d+, \d+, \d+, \d+; "
        r"allowed: new classes, as the same data have them with the task.seed of training, or --allow_seen, ",
    ):
        parts(trained(seed=1, **omniglot), seed=0, **omniglot)


def test_only_new_classes_are_asked_about_unless_seen_ones_are_allowed(trained, parts):
    asked, learnt = GLYPHS | {"seed": 0}, GLYPHS | {"seed": 1}
    run, (met, classes) = trained(**learnt), met_before(asked, learnt)
    found = ", ".join(f"{split} {len(numbers)}" for split, numbers in met.items())
    with pytest.raises(ConfigError) as refused:
        parts(run, **asked)
    seen = sorted({c for numbers in met.values() for c in numbers})
    assert f"model 0 met {len(seen)} of the {classes} classes of meta_test before ({found})" in str(refused.value)
    assert "\n" not in str(refused.value)
    (old, new), doubts = parts(run, **asked, allow_seen=True)
    assert (old.name, list(old.numbers)) == ("seen", seen)
    assert (new.name, list(new.numbers)) == ("new", sorted(images_of("meta_test", **asked).keys() - set(seen)))
    assert not doubts


def test_classes_that_any_model_met_are_seen(trained, parts):
    runs = [trained(**GLYPHS, seed=seed) for seed in (1, 2, 0)]
    alone = [set(parts(run, **GLYPHS, allow_seen=True)[0][0].numbers) for run in runs[:2]]
    assert set(parts(*runs, **GLYPHS, allow_seen=True)[0][0].numbers) == alone[0] | alone[1]
    with pytest.raises(ConfigError, match=r"^on: model 0, model 1 met "):
        parts(*runs, **GLYPHS)


STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
MONO, SANS = [[face + style for style in STYLES] for face in ("SansMono", "Sans")]


@pytest.mark.parametrize(
    "splits",
    [{}, {"test_domains": MONO}, {"test_domains": MONO, "val_domains": SANS, "class_disjoint": False}],
    ids=["classes apart", "domains apart, too", "classes shared by design"],
)
def test_the_splits_of_training_are_never_refused(trained, parts, splits):
    """Nor are they with noise or streams that were not trained on."""
    run = trained(**GLYPHS, **splits)
    for changes in ({}, {"noise": {"site": "pixel"}}):
        (whole,), doubts = parts(run, **GLYPHS, **splits, **changes)
        assert whole.numbers is None
        assert not doubts


SOURCES = {
    "turned around": lambda path: npz(path / "turned.npz", PIXELS[::-1, ::-1]),
    "folders": lambda path: folders(path / "folders"),
    "data set": lambda path: data_set(path / "set"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_classes_are_known_again_by_their_images_in_another_source(trained, parts, tmp_path, source):
    learnt, asked = npz(tmp_path / "letters.npz"), SOURCES[source](tmp_path) | {"seed": 5}
    run, (met, classes) = trained(**learnt), met_before(asked, learnt)
    assert met["meta_train"]
    with pytest.raises(
        ConfigError, match=rf"of the {classes} classes of meta_test before \(meta_train {len(met['meta_train'])}, "
    ):
        parts(run, **asked)
    (old, _), doubts = parts(run, **asked, allow_seen=True)
    assert list(old.numbers) == sorted({c for numbers in met.values() for c in numbers})
    assert "resized or inverted" in doubts["model 0"]


def test_other_images_are_new_whatever_their_names(trained, parts, tmp_path):
    """Classes of both are called 0, 1, 2, ..."""
    run = trained(**npz(tmp_path / "letters.npz"))
    (whole,), doubts = parts(run, **npz(tmp_path / "others.npz", 255 - PIXELS))
    assert whole.numbers is None
    assert doubts["model 0"].startswith("told by images that are equal: ")


def test_a_source_of_which_no_hashes_were_kept_is_in_doubt(trained, parts, tmp_path):
    run = trained(**npz(tmp_path / "letters.npz"))
    kept = json.loads((run / "classes.json").read_text())
    for split in kept["splits"].values():
        split["sketches"] = []
    (run / "classes.json").write_text(json.dumps(kept))
    _, doubts = parts(run, **npz(tmp_path / "turned.npz", PIXELS[::-1]))
    assert doubts["model 0"].startswith("unknown: one of the two sources was prepared when no hashes")


def test_a_run_of_an_older_version_is_compared_by_names(trained, parts):
    run = trained(**GLYPHS, seed=1)
    kept = json.loads((run / "classes.json").read_text())
    assert kept.pop("version") == 2
    del kept["images"], kept["splits"]["meta_confirm"]
    for split in kept["splits"].values():
        del split["first"], split["sketches"]
    (run / "classes.json").write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match=r"before \(meta_train \d+, meta_val \d+\), such as "):
        parts(run, **GLYPHS)
    for split in kept["splits"].values():
        split["names"] = [f"another {name}" for name in split["names"]]
    (run / "classes.json").write_text(json.dumps(kept))
    (whole,), doubts = parts(run, **GLYPHS)
    assert whole.numbers is None
    assert doubts == {"model 0": "told by their names alone: its run kept no hashes of images"}
    (run / "classes.json").unlink()
    assert parts(run, **GLYPHS)[1] == {"model 0": "unknown: its run kept no classes.json"}


def test_classes_go_with_a_model_into_the_registry(trained, parts, tmp_path):
    run = trained(**GLYPHS, seed=1)
    with pytest.raises(ConfigError) as by_run:
        parts(run, **GLYPHS)
    storage = StorageConfig(root=str(tmp_path))
    store = Store(storage)
    version = register(store, checkpoint.best(run), store.deliver(run).run_id, "card", {})
    (run / "classes.json").unlink()
    reference = f"models:/tiny/{version}"
    with pytest.raises(ConfigError) as by_version:
        parts(reference, **GLYPHS)
    assert str(by_version.value) == str(by_run.value)

    folder = find(reference, storage).checkpoint.path
    kept, manifest = folder / "classes.json", folder / "manifest.json"
    whole = kept.read_text()
    kept.write_text(whole.replace('"first"', '"First"'))
    with pytest.raises(ConfigError, match=r"refused, classes\.json has changed"):
        Contestant.of("x", checkpoint.Checkpoint(path=folder))
    kept.unlink()
    hashes = json.loads(manifest.read_text())
    del hashes["classes.json"]
    manifest.write_text(json.dumps(hashes))
    assert Contestant.of("x", checkpoint.Checkpoint(path=folder)).trained, "a version that was registered without them"
    assert parts(reference, **GLYPHS)[1] == {"model 0": "unknown: its run kept no classes.json"}


def test_a_part_with_few_classes_has_short_episodes_or_is_left_out(trained, parts, tmp_path, capsys):
    learnt = npz(tmp_path / "letters.npz")
    run = trained(**learnt, tasks=7)
    both, _ = parts(run, **learnt, seed=5, allow_seen=True)
    assert [(part.name, len(part.numbers), part.task.tasks) for part in both] == [("seen", 7, 7), ("new", 2, 2)]
    for part in both:
        (point,) = part.points(Standard(), "meta_test")
        (cell,) = cells_of(Contestant.reference(NearestMeanConfig()), part.task, point, 0, 8)
        assert {c for classes in compute(cell)["classes"] for c in classes} == set(part.numbers)
        assert cell.name != cell.model_copy(update={"point": point.model_copy(update={"classes": None})}).name
    (only,), _ = parts(run, **npz(tmp_path / "turned.npz", PIXELS[::-1]), seed=1, allow_seen=True)
    assert (only.name, len(only.numbers)) == ("seen", 8)
    assert "new classes of meta_test are left out: 1, where an episode needs 2" in capsys.readouterr().out


def test_an_encoder_counts_though_its_model_is_not_asked(trained, tmp_path):
    """Association maps are Mamba's, which met nothing; references on the features of the other model met what it met."""
    mamba = trained(**GLYPHS, learner={"name": "mamba", "layers": 1, "width": 8, "state_size": 4})
    other, experiment = trained(**GLYPHS, seed=1), tmp_path / "on.yaml"
    experiment.write_text(yaml.safe_dump(TINY | {"task": SIZES | GLYPHS}))
    asked = Asked(episodes=4, on=str(experiment), features=True)
    with pytest.raises(ConfigError, match=r"^on: prototypes met "):
        evaluate([str(mamba), str(other)], Selectivity(), StorageConfig(root=str(tmp_path)), asked)


def test_seen_and_new_classes_have_tables_of_their_own(trained, tmp_path):
    run = trained(**GLYPHS, seed=1)
    storage, experiment = StorageConfig(root=str(tmp_path)), tmp_path / "on.yaml"
    experiment.write_text(yaml.safe_dump(TINY | {"task": SIZES | GLYPHS}))
    asked = Asked(episodes=16, on=str(experiment), features=True, allow_seen=True)
    with pytest.raises(ConfigError, match=r"^on: prototypes met "):
        evaluate([str(run)], Standard(), storage, Asked(episodes=16, on=str(experiment)))
    summaries = evaluate([str(run)], Standard(), storage, asked, folder=tmp_path / "results")
    with pytest.raises(ConfigError, match=r"^suite: overfitting asks about the classes that a model was trained on"):
        evaluate([str(run)], Overfitting(), storage, asked)
    assert list(summaries) == ["seen", "new"]
    numbers = {}
    for name, summary in summaries.items():
        assert summary["part"] == name
        assert set(summary["references"]) == {"nearest_mean", "nearest_mean on prototypes"}
        rows = pd.read_parquet(tmp_path / "results" / name / "episodes.parquet")
        numbers[name] = {int(c) for classes in rows.query("split == 'meta_test'")["classes"] for c in classes}
        assert (
            json.loads((tmp_path / "results" / name / "run.json").read_text())["name"]
            == f"standard/{name} of prototypes"
        )
    met, _ = met_before(GLYPHS, GLYPHS | {"seed": 1})
    seen = {c for found in met.values() for c in found}
    assert numbers["seen"] <= seen
    assert not numbers["new"] & seen
