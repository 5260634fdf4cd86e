"""The contract of every learner: each check runs over all that are registered. What is not here is not in the product."""

import dataclasses
import functools
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_leaves, tree_map

from mambacl import learners, tasks
from mambacl.learners.objective import losses, scores
from mambacl.learners.registry import CONFIGS as REGISTERED
from mambacl.learners.sequence_config import StackConfig

SMALL = {"layers": 2, "width": 16}
MATRIX = {"heads": 2, "state_size": 6, **SMALL}
ENCODED = {"width": 16}
SIMILAR = {"start": "similarity", "query_conv": "query"}
CONFIGS = {
    "mamba": {"name": "mamba", "state_size": 5, **SMALL},
    "mamba joined": {"name": "mamba", "state_size": 5, "tokens": "joined", "short_conv": 0, **SMALL},
    "mamba positions": {"name": "mamba", "state_size": 5, "positions": "sinusoidal", "feed_forward": 2, **SMALL},
    "mamba experts": {"name": "mamba", "state_size": 5, "feed_forward": 2, "experts": {"count": 4}, **SMALL},
    "mamba without decays": {"name": "mamba", "state_size": 5, "decays": False, **SMALL},
    "mamba without gate": {"name": "mamba", "state_size": 5, "gate": False, **SMALL},
    "mamba with queries apart": {"name": "mamba", "state_size": 5, "query_conv": "query", **SMALL},
    "mamba with fixed steps": {"name": "mamba", "state_size": 5, "selective_steps": False, **SMALL},
    "mamba2": {"name": "mamba2", **MATRIX},
    "mamba3": {"name": "mamba3", **MATRIX},
    "mamba3 mimo": {"name": "mamba3", "rank": 3, **MATRIX},
    "mamba3 behind a convolution": {"name": "mamba3", "short_conv": 4, "turned": 0, **MATRIX},
    "attention": {"name": "attention", "heads": 2, **SMALL},
    "attention sinusoidal": {"name": "attention", "heads": 2, "positions": "sinusoidal", "short_conv": 0, **SMALL},
    "attention in a window": {"name": "attention", "heads": 2, "window": 7, **SMALL},
    "transformer": {"name": "transformer", "heads": 2, **SMALL},
    "transformer rotary": {"name": "transformer", "heads": 2, "positions": "rotary", **SMALL},
    "transformer alibi": {"name": "transformer", "heads": 2, "positions": "alibi", **SMALL},
    "transformer log length": {"name": "transformer", "heads": 2, "log_length": True, **SMALL},
    "linear_attention": {"name": "linear_attention", **MATRIX},
    "performer": {"name": "performer", **MATRIX},
    "performer narrow keys": {"name": "performer", "key_width": 3, **MATRIX},
    "gated_deltanet": {"name": "gated_deltanet", **MATRIX},
    "gated_deltanet with three writes": {"name": "gated_deltanet", "householders": 3, "negative": True, **MATRIX},
    "mamba2 with queries apart": {"name": "mamba2", "query_conv": "query", **MATRIX},
    "kda": {"name": "kda", **MATRIX},
    "mlstm": {"name": "mlstm", **MATRIX},
    "mesanet": {"name": "mesanet", **MATRIX},
    "hybrid": {
        "name": "hybrid",
        "mixers": ["mamba2", {"name": "attention", "heads": 2, "window": 9}, "mamba"],
        "width": 16,
    },
    "hybrid with positions": {
        "name": "hybrid",
        "mixers": ["transformer", "mamba3"],
        "positions": "sinusoidal",
        "width": 16,
    },
    "mamba similarity": {"name": "mamba", "state_size": 10, **SIMILAR, **SMALL},
    "mamba2 similarity": {"name": "mamba2", "conv_silu": False, **SIMILAR, **MATRIX},
    "gated_deltanet similarity": {"name": "gated_deltanet", "conv_silu": False, "householders": 2, **SIMILAR, **MATRIX},
    "kda similarity": {"name": "kda", "conv_silu": False, **SIMILAR, **MATRIX},
    "mesanet similarity": {"name": "mesanet", "conv_silu": False, **SIMILAR, **MATRIX},
    "attention similarity": {"name": "attention", "heads": 2, **SIMILAR, **SMALL},
    "oml": {"name": "oml", "hidden": 12, **ENCODED},
    "anml": {"name": "anml", "channels": [8, 8], "hidden": 12},
    "prototypes": {"name": "prototypes", **ENCODED},
    "gemcl": {"name": "gemcl", **ENCODED},
    "alpaca": {"name": "alpaca", **ENCODED},
    "nearest_mean": {"name": "nearest_mean"},
    "knn": {"name": "knn", "neighbours": 3},
    "knn kernel": {"name": "knn", "bandwidth": 0.3, "unit": True},
    "slda": {"name": "slda"},
    "ridge": {"name": "ridge"},
    "random_ridge": {"name": "random_ridge", "features": 50},
    "online_sgd": {"name": "online_sgd"},
    "joint_sgd": {"name": "joint_sgd", "steps": 5},
}
GROWING = {
    config for config, fields in CONFIGS.items() if fields["name"] in {"attention", "transformer", "knn", "joint_sgd"}
}
GROWING = GROWING - {"attention in a window"} | {"hybrid with positions"}
UNTRAINED = {"nearest_mean", "knn", "slda", "ridge", "random_ridge", "online_sgd", "joint_sgd"}
ORDERLESS = {"prototypes", "gemcl", "alpaca", "nearest_mean", "knn", "slda", "ridge", "random_ridge", "joint_sgd"}
"""Whose answers do not depend on the order of the stream."""
SEQUENCES = {name for name, config in CONFIGS.items() if issubclass(REGISTERED[config["name"]], StackConfig)}
FAMILIES = {
    "glyphs": {"name": "glyphs", "tasks": 4, "shots": 3, "queries": 2, "vocabulary": 6},
    "sine": {"name": "sine", "tasks": 4, "shots": 3, "queries": 2},
}
ONLY = {"nearest_mean": "glyphs", "slda": "glyphs", "prototypes": "glyphs", "gemcl": "glyphs", "alpaca": "sine"}
"""Learners that are made for one kind of output."""
CASES = [
    pytest.param(config, family, id=f"{config}-{family}")
    for config in CONFIGS
    for family in FAMILIES
    if ONLY.get(CONFIGS[config]["name"], "glyphs" if "start" in CONFIGS[config] else family) == family
]
TRAINED = [case for case in CASES if CONFIGS[case.values[0]]["name"] not in UNTRAINED]
SEQUENCE = [case for case in CASES if case.values[0] in SEQUENCES]
B, T, M = 3, 12, 8


def build(config, family, dtype=torch.float64):
    torch.manual_seed(0)
    spec, episode = source(family)
    learner = learners.build(CONFIGS[config], spec).to(dtype).eval()
    for name, parameter in learner.named_parameters():
        if name.startswith("head"):  # fresh heads are zero, and would hide what is behind them
            torch.nn.init.normal_(parameter)
        elif "start" in CONFIGS[config]:  # weights that start at zero, likewise
            parameter.data += 0.1 * torch.randn_like(parameter)
    return learner, episode


@functools.cache
def source(family):
    """Spec and episode of a family; of images every second pixel of every second row, which is enough here."""
    made = tasks.build(FAMILIES[family])
    spec, episode = made.spec, made.episodes("meta_train", range(B))
    if spec.input == "vector":
        return spec, episode
    halved = {name: getattr(episode, name)[..., ::2, ::2].contiguous() for name in ("support_x", "query_x")}
    return spec.model_copy(update={"shape": halved["query_x"].shape[2:]}), dataclasses.replace(episode, **halved)


def mid_stream(episode):
    """The same episode with each query asked at a place of its own."""
    places = torch.randint(0, T, (B, M), generator=torch.Generator().manual_seed(1))
    return dataclasses.replace(episode, query_after=places)


def difference(a, b):
    """Largest difference as a share of the largest entry; infinite entries must agree."""
    finite = torch.isfinite(b)
    assert torch.equal(torch.isfinite(a), finite)
    return ((a - b)[finite].abs().max() / b[finite].abs().max()).item()


def streamed(learner, episode):
    """Predictions by the streaming face, one example at a time, each query asked at its place."""
    state, answers = learner.init_state(B), []
    for t in range(T):
        state = learner.observe(state, episode.support_x[:, t], episode.support_y[:, t])
        answers.append(learner.predict(state, episode.query_x).prediction)
    place = episode.query_after.view(1, B, M, 1).expand(1, B, M, answers[0].shape[-1])
    return torch.stack(answers).gather(0, place)[0]


def replicated(learner, episode):
    """Predictions with a sequence of its own for each query: the oracle of query independence."""
    rows = []
    for m in range(M):
        one = {
            name: getattr(episode, name)[:, m : m + 1] for name in ("query_x", "query_y", "query_task", "query_after")
        }
        rows.append(learner(dataclasses.replace(episode, **one)).prediction)
    return torch.cat(rows, dim=1)


def gradients(learner, prediction, episode):
    learner.zero_grad()
    per_query = losses(prediction, episode)
    per_query[per_query.isfinite()].mean().backward()  # queries whose task has not been seen may cost infinitely much
    return {name: p.grad.clone() for name, p in learner.named_parameters()}


def test_every_registered_learner_is_in_this_suite():
    assert {config["name"] for config in CONFIGS.values()} == set(REGISTERED)


@pytest.mark.parametrize(("config", "family"), CASES)
@pytest.mark.parametrize("place", ["end", "mid-stream"])
def test_parallel_equals_streaming_equals_replicated(config, family, place):
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        learner, episode = build(config, family, dtype)
        episode = mid_stream(episode) if place == "mid-stream" else episode
        parallel = learner(episode).prediction
        assert difference(streamed(learner, episode), parallel) < bound
        assert difference(replicated(learner, episode), parallel) < bound


@pytest.mark.parametrize(("config", "family"), TRAINED)
def test_gradients_of_all_faces_agree(config, family):
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        learner, episode = build(config, family, dtype)
        episode = mid_stream(episode)
        parallel = gradients(learner, learner(episode).prediction, episode)
        for face in (streamed, replicated):
            other = gradients(learner, face(learner, episode), episode)
            for name, gradient in parallel.items():
                assert difference(other[name], gradient) < bound, (face.__name__, name)


@pytest.mark.parametrize(("config", "family"), CASES)
def test_a_query_is_independent_of_the_others(config, family):
    learner, episode = build(config, family)
    before = learner(episode).prediction
    changed = episode.query_x.clone()
    changed[:, 1:] = 0
    for other in (changed, episode.query_x[:, :1], torch.cat([episode.query_x, changed], dim=1)):
        queries = dataclasses.replace(episode, query_x=other, query_after=torch.full(other.shape[:2], T - 1))
        assert difference(learner(queries).prediction[:, :1], before[:, :1]) < 1e-6


@pytest.mark.parametrize(("config", "family"), CASES)
def test_a_query_leaves_the_state_and_an_old_state_stays_valid(config, family):
    """Two futures of one state must not disturb each other, nor the state itself."""
    learner, episode = build(config, family)
    x, y, q = episode.support_x, episode.support_y, episode.query_x
    with torch.no_grad():
        state = learner.init_state(B)
        for t in range(6):
            state = learner.observe(state, x[:, t], y[:, t])
        before = learner.predict(state, q).prediction
        left = learner.observe(state, x[:, 6], y[:, 6])
        right = learner.observe(state, x[:, 7], y[:, 7])
        left_answer = learner.predict(left, q).prediction
        learner.observe(right, x[:, 8], y[:, 8])
        assert difference(learner.predict(state, q).prediction, before) == 0
        assert difference(learner.predict(left, q).prediction, left_answer) == 0
        assert not torch.equal(left_answer, learner.predict(right, q).prediction)


@pytest.mark.parametrize(("config", "family"), CASES)
def test_the_future_changes_no_earlier_answer(config, family):
    learner, episode = build(config, family)
    early = dataclasses.replace(episode, query_after=torch.full((B, M), 4))
    changed_x = episode.support_x.clone()
    changed_x[:, 5:] = changed_x[:, 5:].flip(1)
    before = learner(early).prediction
    assert difference(learner(dataclasses.replace(early, support_x=changed_x)).prediction, before) < 1e-12
    late_x = dataclasses.replace(episode, support_x=changed_x)
    late, unchanged = (learner(e).prediction.nan_to_num(neginf=-1e3) for e in (late_x, episode))
    assert difference(late, unchanged) > 1e-9


@pytest.mark.parametrize("config", [case.values[0] for case in CASES if case.values[1] == "glyphs"])
def test_permuting_label_codes_permutes_the_predictions(config):
    """No code is special: relabel stream, embedding and head alike, and the answers are relabelled."""
    learner, episode = build(config, "glyphs")
    before = learner(episode).prediction
    permutation = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    relabelled = dataclasses.replace(episode, support_y=permutation[episode.support_y])
    inverse = permutation.argsort()
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name in ("label.weight", "head.weight", "head.bias"):
                parameter.copy_(parameter[inverse])
            elif name == "weights.1":  # the last layer of OML's fast network
                parameter.copy_(parameter[:, inverse])
    assert difference(learner(relabelled).prediction[..., permutation], before) < 1e-12


@pytest.mark.parametrize(("config", "family"), CASES)
def test_state_size_is_what_it_says(config, family):
    learner, episode = build(config, family)
    with torch.no_grad():
        for examples in (1, 5, T):
            state = learner.observe(
                learner.init_state(B), episode.support_x[:, :examples], episode.support_y[:, :examples]
            )
            held = sum(leaf[0].numel() for leaf in tree_leaves(state) if leaf.is_floating_point())
            assert learner.state_floats(examples) == held
    constant = learner.state_floats(10) == learner.state_floats(1000)
    assert constant == (config not in GROWING)


@pytest.mark.parametrize(("config", "family"), TRAINED)
def test_every_parameter_gets_a_gradient(config, family):
    learner, episode = build(config, family)
    for name, gradient in gradients(learner, learner(episode).prediction, episode).items():
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("config", [case.values[0] for case in TRAINED if case.values[1] == "glyphs"])
def test_a_fixed_episode_is_overfitted(config):
    learner, episode = build(config, "glyphs", torch.float32)
    learner.train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for _ in range(300):
        prediction = learner(episode).prediction
        if (scores(prediction, episode) == 1).all():
            return
        losses(prediction, episode).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    pytest.fail(f"accuracy {scores(prediction, episode).mean():.2f} after 300 steps")


@pytest.mark.parametrize(("config", "family"), SEQUENCE)
def test_association_rows_are_distributions_over_the_visible_stream(config, family):
    learner, episode = build(config, family)
    output = learner(episode, layers=(0, -1), exact=True)
    assert [a.layer for a in output.associations] == [0, learner.layers - 1]
    assert difference(output.prediction, learner(episode).prediction) == 0
    for association in output.associations:
        assert association.weights.shape == (B, M, len(association.example))
        assert torch.allclose(association.weights.sum(-1), torch.ones(B, M, dtype=torch.float64))
        assert association.example.unique(return_counts=True)[1].tolist() == [learner.tokens_per_example] * T
    partial = learner(mid := mid_stream(episode), layers=(-1,)).associations[0]
    hidden = partial.example > mid.query_after.unsqueeze(-1)
    if window := CONFIGS[config].get("window"):
        hidden |= 2 * (mid.query_after.unsqueeze(-1) + 1) - torch.arange(hidden.shape[-1]) >= window
    assert torch.equal(torch.isinf(partial.scores), hidden.unsqueeze(1).expand_as(partial.scores))


def test_a_learner_without_maps_says_so():
    learner, episode = build("nearest_mean", "glyphs")
    with pytest.raises(ValueError, match=r"^layers: NearestMean has no association maps$"):
        learner(episode, layers=(-1,))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Predictions of every case that went on in another process from its saved weights and its state in mid-stream."""
    folder = tmp_path_factory.mktemp("states")
    jobs = []
    for case in CASES:
        config, family = case.values
        learner, episode = build(config, family)
        with torch.no_grad():
            state = learner.observe(learner.init_state(B), episode.support_x[:, :7], episode.support_y[:, :7])
        rest = {"x": episode.support_x[:, 7:], "y": episode.support_y[:, 7:], "queries": episode.query_x}
        leaves = {str(i): leaf for i, leaf in enumerate(tree_leaves(state))}
        for name, tensors in (("state", leaves), ("model", learner.state_dict()), ("rest", rest)):
            tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
            save_file(tensors, folder / f"{len(jobs)}.{name}.safetensors")
        jobs.append({"config": CONFIGS[config], "spec": learner.spec.model_dump(mode="json"), "id": case.id})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    code = f"""
import json, pathlib, torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_flatten, tree_unflatten
from mambacl import learners
from mambacl.tasks.episode import Spec
folder = pathlib.Path({str(folder)!r})
answers = {{}}
for i, job in enumerate(json.loads((folder / "jobs.json").read_text())):
    state, model, rest = (load_file(folder / f"{{i}}.{{name}}.safetensors") for name in ("state", "model", "rest"))
    learner = learners.build(job["config"], Spec.model_validate(job["spec"])).double().eval()
    learner.load_state_dict(model)
    _, structure = tree_flatten(learner.init_state({B}))
    before = tree_unflatten([state[str(leaf)] for leaf in range(len(state))], structure)
    with torch.no_grad():
        answers[job["id"]] = learner.predict(learner.observe(before, rest["x"], rest["y"]), rest["queries"]).prediction
save_file({{name: answer.contiguous() for name, answer in answers.items()}}, folder / "answers.safetensors")
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert child.returncode == 0, child.stderr.decode()
    return load_file(folder / "answers.safetensors")


@pytest.mark.parametrize(("config", "family"), CASES)
def test_a_state_saved_in_one_process_goes_on_in_another(config, family, elsewhere):
    learner, episode = build(config, family)
    with torch.no_grad():
        expected = learner(episode).prediction
    assert difference(elsewhere[f"{config}-{family}"], expected) < 1e-9


def test_a_state_is_a_pytree_that_can_be_moved():
    learner, episode = build("attention", "glyphs")
    state = learner.observe(learner.init_state(B), episode.support_x, episode.support_y)
    halved = tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, state)
    assert (
        difference(
            learner.float().predict(halved, episode.query_x).prediction.double(),
            learner.double().predict(state, episode.query_x).prediction,
        )
        < 1e-4
    )
