"""Meta-training gives the same weights whatever happens on the way: kills, workers, accumulated parts."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from torch.utils._pytree import tree_leaves

from mambacl.learners.registry import build as build_learner
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import checkpoint
from mambacl.platform.training.command import check
from mambacl.platform.training.lengths import lengths
from mambacl.platform.training.loop import Diverged, meta_train
from mambacl.platform.training.optimizer import build_optimizer, learning_rate
from mambacl.platform.training.step import PREFIX, Stepper
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import ConfigError, parse
from mambacl.tasks.registry import build as build_family

TINY = {
    "name": "tiny",
    "task": {"name": "sine", "tasks": 3, "shots": 2, "queries": 1},
    "learner": {"name": "mamba", "layers": 2, "width": 8, "state_size": 4, "dropout": 0.1},
    "selectivity": {"loss": "kl", "weight": 0.5, "until_step": 25},
    "train": {
        "steps": 40, "batch": 4, "learning_rate": 0.003, "warmup": 5, "evaluate_every": 10, "evaluate_episodes": 6,
        "curriculum": [{"until": 15, "tasks": [1, 3], "shots": 1}],
    },
}  # fmt: skip


def config(**changes):
    content = json.loads(json.dumps(TINY))
    for name, value in changes.items():
        section, field = name.split("__")
        content[section][field] = value
    return parse(ExperimentConfig, content)


def nothing(*_):
    return False


def train(run, experiment, report=nothing, live=nothing):
    return meta_train(experiment, run, Worker(), report, live)


def weights(run):
    return checkpoint.newest(run).weights


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed")
    progress = train(run, config())
    assert progress.stopped == "all steps done"
    return run


def test_the_same_seed_gives_the_same_bits_and_another_does_not(undisturbed, tmp_path):
    train(tmp_path / "a", config())
    assert same(weights(tmp_path / "a"), weights(undisturbed))
    other = parse(ExperimentConfig, TINY | {"seed": 1})
    train(tmp_path / "b", other)
    assert not same(weights(tmp_path / "b"), weights(undisturbed))


def test_a_run_that_is_asked_to_stop_goes_on_to_the_same_bits(undisturbed, tmp_path):
    """Ctrl-C: a checkpoint at the next point of the curve, between evaluations or at one."""
    progress = train(tmp_path, config(train__evaluate_every=20), live=lambda step, point: step >= 10)
    assert (progress.step, progress.stopped) == (10, None)
    assert checkpoint.newest(tmp_path).progress.step == 10
    whole = tmp_path / "whole"
    train(whole, config(train__evaluate_every=20))
    train(tmp_path, config(train__evaluate_every=20))
    assert same(weights(tmp_path), weights(whole))


@pytest.mark.parametrize("attempt", range(3))
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(undisturbed, tmp_path, attempt):
    """SIGKILL at random moments, again and again until the run is through."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY))
    code = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
import pathlib, yaml
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.loop import meta_train
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
config = parse(ExperimentConfig, yaml.safe_load(open({str(tmp_path / "config.yaml")!r})))
print("ready", flush=True)
meta_train(config, pathlib.Path({str(tmp_path / "run")!r}), Worker(), lambda c: None, lambda s, p: False)
"""
    moments, kills = random.Random(attempt), 0
    for _ in range(50):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        try:
            child.wait(timeout=moments.uniform(0.05, 1.0) if kills < 3 else 120)
            break
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            kills += 1
    assert child.returncode == 0
    assert same(weights(tmp_path / "run"), weights(undisturbed))
    assert checkpoint.newest(tmp_path / "run").progress.step == 40


def test_after_a_damaged_checkpoint_the_run_goes_on_from_the_one_before(undisturbed, tmp_path):
    train(tmp_path, config(), live=lambda step, point: step >= 30)
    (checkpoint.newest(tmp_path).path / "model.safetensors").write_bytes(b"")
    assert checkpoint.newest(tmp_path).progress.step < 30
    train(tmp_path, config())
    assert same(weights(tmp_path), weights(undisturbed))


def test_accumulated_parts_give_the_same_losses(tmp_path):
    """The gradient of a batch does not depend on how it is cut."""
    curves = []
    for parts in (1, 2, 4):
        run = tmp_path / str(parts)
        train(run, config(learner__dropout=0.0, train__accumulate=parts))
        curves.append([point["train/loss"] for point in checkpoint.newest(run).curve if "train/loss" in point])
    for other in curves[1:]:
        assert other == pytest.approx(curves[0], rel=1e-4)


def first_losses(folder, size, port):
    """The losses of the first 20 steps of a run that `size` processes share."""
    content = json.loads(json.dumps(TINY))
    content["learner"]["dropout"] = 0.0
    content["train"] |= {"steps": 20, "evaluate_every": 20}
    code = f"""
import pathlib, sys, torch
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training import loop
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
rank = int(sys.argv[1])
if {size} > 1:
    torch.distributed.init_process_group("gloo", "tcp://127.0.0.1:{port}", rank=rank, world_size={size})
loop.LOG_EVERY = 1
config = parse(ExperimentConfig, {content!r})
loop.meta_train(config, pathlib.Path({str(folder)!r}), Worker(rank, {size}), lambda c: None, lambda s, p: False)
if {size} > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(rank)]) for rank in range(size)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * size
    return [point["train/loss"] for point in checkpoint.newest(folder).curve if "train/loss" in point]


def test_two_workers_give_the_losses_of_one(tmp_path, unused_port):
    """The first 20 losses agree to 1e-4: they are sums over all workers over counts over all workers."""
    alone, together = first_losses(tmp_path / "1", 1, unused_port), first_losses(tmp_path / "2", 2, unused_port)
    assert len(alone) == 20
    assert together == pytest.approx(alone, rel=1e-4)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoints(tmp_path):
    with pytest.raises(Diverged, match=r"loss is (nan|inf) at step"):
        train(tmp_path, config(train__learning_rate=1e18, train__clip=None, train__warmup=15))
    last = checkpoint.newest(tmp_path)
    assert last is None or last.fault() is None


def test_a_plateau_stops_the_run_with_its_reason(tmp_path):
    progress = train(tmp_path, config(train__learning_rate=1e-12, train__patience=2, train__steps=100))
    assert progress.step < 100
    assert progress.stopped.startswith("plateau: 2 evaluations")
    began = time.monotonic()
    assert train(tmp_path, config(train__learning_rate=1e-12, train__patience=2, train__steps=100)) == progress
    assert time.monotonic() - began < 60


def test_the_curve_is_complete_and_in_order(undisturbed):
    curve = checkpoint.newest(undisturbed).curve
    assert [point["step"] for point in curve if "train/loss" in point] == [10, 20, 30, 40]
    assert [point["step"] for point in curve if "meta_val/score" in point] == [10, 20, 30, 40]
    assert all("meta_val/true_mass" in point for point in curve if "meta_val/score" in point)
    assert curve[-2]["train/selectivity"] == 0, "the term is off after until_step"
    scores = checkpoint.newest(undisturbed).progress.scores
    assert len(scores) == 6


def test_lengths_follow_the_curriculum_and_agree_everywhere():
    experiment = config()
    drawn = [lengths(experiment, step) for step in range(20)]
    assert drawn == [lengths(experiment, step) for step in range(20)]
    assert {size["tasks"] for size in drawn[:15]} == {1, 2, 3}
    assert all(size["shots"] == 1 for size in drawn[:15])
    assert all(size == {} for size in drawn[15:])


def test_the_last_stage_may_last_to_the_end():
    """Random lengths throughout are one stage without an end."""
    experiment = config(train__curriculum=[{"until": 5, "query_after": "own_task_or_later"}, {"shots": [1, 4]}])
    drawn = [lengths(experiment, step) for step in range(300)]
    mid_stream = experiment.task.stream.model_copy(update={"query_after": "own_task_or_later"})
    assert drawn[:5] == [{"tasks": None, "shots": None, "stream": mid_stream}] * 5
    assert drawn[5]["stream"] == experiment.task.stream
    shots = [size["shots"] for size in drawn[5:]]
    assert all(shots.count(number) > 50 for number in (1, 2, 3, 4))
    for stages in ([{"tasks": 2}, {"until": 5, "tasks": 3}], [{"until": 5}, {"until": 5}]):
        with pytest.raises(ConfigError, match=r"^train: curriculum: `until` must rise from stage to stage"):
            config(train__curriculum=stages)


FLAWED = {"order": "revisits", "uneven": 0.5, "label_noise": 0.1, "distractors": 1}
PASSING = {"train__state_passing": 0.5, "train__curriculum": [{"query_after": "own_task_or_later", "tasks": [2, 3]}]}


def test_state_passing_and_mid_stream_queries_resume_to_the_same_bits(tmp_path):
    """Whether a step starts from a used state, and from which, is decided by seed and step alone."""
    experiment = config(**PASSING, task__stream=FLAWED)
    train(tmp_path / "whole", experiment)
    train(tmp_path / "cut", experiment, live=lambda step, _: step == 20)
    assert checkpoint.newest(tmp_path / "cut").progress.step == 20
    train(tmp_path / "cut", experiment)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    curve = [point["train/loss"] for point in checkpoint.newest(tmp_path / "whole").curve if "train/loss" in point]
    train(tmp_path / "parts", config(**PASSING, task__stream=FLAWED, train__accumulate=2, learner__dropout=0.0))
    train(tmp_path / "one", config(**PASSING, task__stream=FLAWED, learner__dropout=0.0))
    parts, one = (
        [point["train/loss"] for point in checkpoint.newest(tmp_path / name).curve if "train/loss" in point]
        for name in ("parts", "one")
    )
    assert parts == pytest.approx(one, rel=1e-4)
    assert len(curve) == 4


def test_streams_start_from_the_state_after_an_episode_of_their_own(monkeypatch):
    """In the share of the steps that was asked for; no gradient reaches that episode, and it is trained on in no step."""
    experiment = config(train__state_passing=0.3, train__curriculum=[], learner__dropout=0.0)
    family = build_family(experiment.task)
    learner = build_learner(experiment.learner, family.spec)
    stepper = Stepper(learner, build_optimizer(learner, experiment.train), experiment, Worker())
    asked, started = [], []
    forward = learner.forward

    def watched(episode, state=None, **options):
        started.append(state)
        return forward(episode, state, **options)

    monkeypatch.setattr(learner, "forward", watched)

    def episodes(numbers):
        asked.append(list(numbers))
        return family.episodes("meta_train", numbers)

    for step in range(60):
        stepper.step(episodes, range(4 * step, 4 * step + 4), step)
    passed = [state is not None for state in started]
    assert 0.15 < sum(passed) / 60 < 0.45
    prefixes = [numbers for numbers in asked if numbers[0] >= PREFIX]
    own = [[4 * step + i for i in range(4)] for step in range(60)]
    assert prefixes == [[n + PREFIX for n in numbers] for numbers, p in zip(own, passed, strict=True) if p]
    for state in filter(None, started):
        leaves = [leaf for leaf in tree_leaves(state) if leaf.is_floating_point()]
        assert not any(leaf.requires_grad for leaf in leaves)
        assert max(leaf.abs().max() for leaf in leaves) > 0
    assert max(numbers[-1] for numbers in own) < PREFIX


@pytest.mark.parametrize("site", ["encoder_out", "token"])
def test_the_stream_before_has_its_own_noise(monkeypatch, site):
    """The state passed on is the one that `forward` leaves after that very episode, noise and all, and not the clean one."""
    noise = {"site": site, "strength": 2.0}
    experiment = config(
        task__noise=noise, train__state_passing=1.0, train__curriculum=[], learner__dropout=0.0, selectivity__weight=0
    )
    family = build_family(experiment.task)
    learner = build_learner(experiment.learner, family.spec)
    stepper = Stepper(learner, build_optimizer(learner, experiment.train), experiment, Worker())
    started = []
    forward = learner.forward

    def watched(episode, state=None, **options):
        started.append(state)
        return forward(episode, state, **options)

    monkeypatch.setattr(learner, "forward", watched)
    before = family.episodes("meta_train", range(PREFIX, PREFIX + 4))
    with torch.no_grad():
        support, _ = learner.inputs(before)
        noisy = learner.absorb(learner.init_state(4), support, before.support_y)
        clean = learner.observe(learner.init_state(4), before.support_x, before.support_y)
    stepper.step(lambda numbers: family.episodes("meta_train", numbers), range(4), 0)
    [state] = started
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(state), tree_leaves(noisy), strict=True))
    layers = zip(tree_leaves(state["layers"]), tree_leaves(clean["layers"]), strict=True)
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in layers)


def test_only_a_state_of_fixed_size_is_passed_on():
    for learner in ({"name": "attention", "width": 8}, {"name": "alpaca", "width": 8}):
        experiment = parse(ExperimentConfig, TINY | {"learner": learner, "train": {"state_passing": 0.5}})
        with pytest.raises(ConfigError, match=r"^train\.state_passing: needs a sequence learner .*, \w+ is none$"):
            check(experiment)
    check(parse(ExperimentConfig, TINY | {"train": {"state_passing": 0.5}}))


def test_queries_without_an_answer_are_reported_and_not_trained_on(tmp_path):
    task = {
        "name": "recall",
        "tasks": 3,
        "dimensions": 8,
        "stream": {"open_set": 2, "query_after": "own_task_or_later"},
    }
    experiment = parse(ExperimentConfig, TINY | {"task": task, "train": TINY["train"] | {"steps": 10}})
    assert train(tmp_path, experiment).stopped == "all steps done"
    point = checkpoint.newest(tmp_path).curve[-1]
    assert 0 <= point["meta_val/open_set_auroc"] <= 1
    assert 0 < point["meta_val/true_mass"] < 1


def test_learning_rate_schedules():
    base = {"train__steps": 110, "train__warmup": 10, "train__learning_rate": 1.0, "train__halve_every": 50}
    rates = {}
    for schedule in ("cosine", "step", "constant"):
        train_config = config(**base, train__schedule=schedule).train
        rates[schedule] = [learning_rate(train_config, step) for step in (0, 9, 60, 109)]
    assert rates["constant"] == [0.1, 1, 1, 1]
    assert rates["step"] == [0.1, 1, 0.5, 0.5]
    assert rates["cosine"] == pytest.approx([0.1, 1, 0.5, 0.000247], abs=1e-4)


def test_a_reference_is_scored_and_saved_without_a_step(tmp_path):
    """What has nothing to train is a run like any other, so that it can be registered and evaluated."""
    reported = []
    experiment = parse(ExperimentConfig, TINY | {"learner": {"name": "ridge"}})
    progress = train(tmp_path / "run", experiment, report=reported.append)
    assert (progress.step, progress.stopped) == (0, "nothing to train")
    assert reported[0].fault() is None
    assert reported[0].facts["score"] == progress.score == pytest.approx(sum(progress.scores) / 6)
    assert train(tmp_path / "run", experiment) == progress


def test_a_learner_without_associations_is_trained_without_the_term(tmp_path):
    experiment = parse(ExperimentConfig, TINY | {"learner": {"name": "alpaca", "width": 8}})
    assert train(tmp_path / "run", experiment).stopped == "all steps done"


def test_performer_features_are_drawn_anew_by_step_alone(tmp_path):
    """Redrawn features are part of the weights, and a run that is interrupted draws the same ones."""
    learner = {"name": "performer", "layers": 2, "width": 8, "heads": 2, "state_size": 4, "redraw": 7}
    experiment = parse(ExperimentConfig, TINY | {"learner": learner})
    train(tmp_path / "whole", experiment)
    train(tmp_path / "cut", experiment, live=lambda step, _: step == 20)
    first = weights(tmp_path / "cut")
    train(tmp_path / "cut", experiment)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    directions = [name for name in first if name.endswith("directions")]
    assert not torch.equal(first[directions[0]], weights(tmp_path / "whole")[directions[0]])
    assert not torch.equal(first[directions[0]], first[directions[1]])


def test_codes_are_ordered_in_a_share_of_each_batch_until_a_step():
    ordered = {"share": 0.5, "until": 10}
    task = {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 1, "vocabulary": 8}
    experiment = config(train__ordered_codes=ordered).model_copy(
        update={"task": parse(ExperimentConfig, {"name": "x", "task": task}).task}
    )
    family = build_family(experiment.task)
    stepper = Stepper(build_learner(experiment.learner, family.spec), None, experiment, Worker())
    drawn = family.episodes("meta_train", range(8, 12))
    for step, whose in ((0, [True, True, False, False]), (9, [True, True, False, False]), (10, [False] * 4)):
        episode = stepper._coded(drawn, step)
        assert (episode.support_y == episode.support_task).all(1).tolist() == whose
