"""Anchors in closed form against scikit-learn, and the relations between them that must hold."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mambacl import learners, tasks
from mambacl.learners.closed_form.configs import RidgeConfig
from mambacl.learners.objective import scores
from mambacl.learners.registry import CONFIGS
from mambacl.tasks.episode import Episode, Spec

VECTORS = {"name": "sine", "tasks": 5, "shots": 4, "queries": 2}
B, K, S, M = 3, 5, 4, 10


@pytest.fixture(scope="module")
def values():
    """An episode of values, and its family's spec."""
    family = tasks.build(VECTORS)
    return family.spec, family.episodes("meta_train", range(B))


@pytest.fixture(scope="module")
def classes(values):
    """The same vectors as a classification: the label of an example is its task."""
    spec, episode = values
    spec = spec.model_copy(update={"output": "classification", "size": K + 2})
    return spec, dataclasses.replace(
        episode, support_y=episode.support_task, query_y=episode.query_task, objective="classification"
    )


def answer(config, spec, episode, dtype=torch.float64):
    torch.manual_seed(0)
    learner = learners.build(config, spec).to(dtype).eval()
    with torch.no_grad():
        return learner, learner(episode).prediction.numpy()


def rows(episode, b):
    x, y, q = episode.support_x[b], episode.support_y[b], episode.query_x[b]
    return x.double().numpy(), y.numpy(), q.double().numpy()


def test_nearest_mean_equals_scikit_learn(classes):
    from sklearn.neighbors import NearestCentroid

    _, logits = answer({"name": "nearest_mean"}, *classes)
    for b in range(B):
        x, y, q = rows(classes[1], b)
        assert (NearestCentroid().fit(x, y).predict(q) == logits[b].argmax(-1)).all()


@pytest.mark.parametrize("neighbours", [1, 3])
def test_knn_equals_scikit_learn(classes, values, neighbours):
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    _, logits = answer({"name": "knn", "neighbours": neighbours}, *classes)
    _, predicted = answer({"name": "knn", "neighbours": neighbours}, *values)
    for b in range(B):
        x, y, q = rows(classes[1], b)
        shares = KNeighborsClassifier(neighbours).fit(x, y).predict_proba(q)
        assert np.allclose(np.exp(logits[b])[:, :K], shares, atol=1e-3)
        x, y, q = rows(values[1], b)
        assert np.allclose(predicted[b], KNeighborsRegressor(neighbours).fit(x, y).predict(q), atol=1e-3)


def test_slda_equals_scikit_learn(classes):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    _, logits = answer({"name": "slda", "shrinkage": 0.3}, *classes)
    for b in range(B):
        x, y, q = rows(classes[1], b)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=np.full(K, 1 / K)).fit(x, y)
        ours, theirs = logits[b][:, :K], model.decision_function(q)
        assert np.allclose(ours - ours[:, :1], theirs - theirs[:, :1], atol=1e-6)


@pytest.mark.parametrize(
    "config", [{"name": "ridge", "penalty": 0.3}, {"name": "random_ridge", "features": 80, "penalty": 0.3}]
)
def test_ridge_along_the_stream_equals_scikit_learn(values, config):
    from sklearn.linear_model import Ridge

    spec, episode = values
    learner, predicted = answer(config, spec, episode)
    state = learner.init_state(B)
    for t in range(K * S):
        state = learner.observe(state, episode.support_x[:, t], episode.support_y[:, t])
    streamed = learner.predict(state, episode.query_x).prediction.numpy()
    for b in range(B):
        x, y, q = (
            learner.features(part[b : b + 1])[0].numpy()
            for part in (episode.support_x, episode.support_x, episode.query_x)
        )
        penalty = 0.3 * (x**2).sum(1).mean()
        expected = Ridge(alpha=penalty, fit_intercept=False).fit(x, episode.support_y[b].numpy()).predict(q)
        assert np.allclose(predicted[b], expected, atol=1e-6)
        assert np.allclose(streamed[b], expected, atol=1e-6)


def test_alpaca_with_a_plain_prior_equals_ridge(values):
    spec, episode = values
    learner, predicted = answer({"name": "alpaca", "width": 12, "precision": 3.0}, spec, episode)
    with torch.no_grad():
        z, q = learner.features(episode.support_x), learner.features(episode.query_x)
        gram = z.transpose(1, 2) @ z + 3 * torch.eye(12)
        expected = q @ torch.linalg.solve(gram, z.transpose(1, 2) @ episode.support_y.double())
    assert np.allclose(predicted, expected.numpy(), atol=1e-9)


def test_prototypes_with_the_identity_as_encoder_are_the_nearest_mean(classes):
    spec, episode = classes
    _, expected = answer({"name": "nearest_mean"}, spec, episode)
    learner, _ = answer({"name": "prototypes", "width": 50}, spec, episode)
    learner.encoder = torch.nn.Identity()
    with torch.no_grad():
        logits = learner(
            dataclasses.replace(episode, support_x=episode.support_x.double(), query_x=episode.query_x.double())
        ).prediction
    finite = np.isfinite(expected)
    assert np.allclose(logits.numpy()[finite], 2 * 50**-0.5 * expected[finite])


def test_gemcl_with_a_sure_prior_is_the_nearest_mean(classes):
    spec, episode = classes
    _, logits = answer({"name": "gemcl", "width": 16, "alpha": 1e9, "beta": 1e9}, spec, episode)
    learner, _ = answer({"name": "gemcl", "width": 16}, spec, episode)
    with torch.no_grad():
        z, q = learner.features(episode.support_x), learner.features(episode.query_x)
    means = torch.stack([z[:, k * S : (k + 1) * S].mean(1) for k in range(K)], 1)
    order = torch.stack([episode.support_y[:, k * S] for k in range(K)], 1)
    nearest = order.gather(1, torch.cdist(q, means).argmin(-1))
    assert (nearest.numpy() == logits.argmax(-1)).all()


def test_gemcl_is_the_predictive_density_of_normal_features_with_unknown_variance(classes):
    """Of classes with 1 to 7 examples: what depends on their number alone counts, too."""
    from scipy.stats import t

    spec, episode = classes
    shots = [1, 7, 2, 4, 6]
    labels = torch.arange(K).repeat_interleave(torch.tensor(shots)).expand(B, -1)
    episode = dataclasses.replace(episode, support_y=labels)
    learner, logits = answer({"name": "gemcl", "width": 3, "alpha": 2.0, "beta": 3.0}, spec, episode)
    with torch.no_grad():
        z, q = learner.features(episode.support_x), learner.features(episode.query_x)
    for code, n in enumerate(shots):
        own = z[0, labels[0] == code].numpy()
        alpha, mean = 2 + n / 2, own.mean(0)
        scale = np.sqrt((3 + 0.5 * ((own - mean) ** 2).sum(0)) / alpha * (1 + 1 / n))
        assert np.allclose(logits[0, :, code], t.logpdf(q[0].numpy(), df=2 * alpha, loc=mean, scale=scale).sum(-1))


def test_gemcl_in_single_precision_keeps_small_differences_of_classes(classes):
    """The logarithms of its Gamma functions are large, and differ by little."""
    spec, episode = classes
    config = {"name": "gemcl", "width": 16, "alpha": 1e4, "beta": 1e5}
    (_, exact), (_, single) = (answer(config, spec, episode, dtype) for dtype in (torch.float64, torch.float32))
    finite = np.isfinite(exact)
    assert np.allclose(single[finite], exact[finite], atol=1e-4)


def test_kernel_votes_are_softmax_attention(values):
    """One softmax attention layer with q = k = z sqrt(scale) and v = y, for z of length 1."""
    spec, episode = values
    _, predicted = answer({"name": "knn", "bandwidth": 0.2, "unit": True}, spec, episode)
    z, q = (F.normalize(x.double(), dim=-1) for x in (episode.support_x, episode.query_x))
    expected = torch.softmax(q @ z.transpose(1, 2) / 0.2**2, -1) @ episode.support_y.double()
    assert np.allclose(predicted, expected.numpy(), atol=1e-9)


def test_ridge_without_trust_in_the_data_is_linear_attention_without_a_normaliser(values):
    """A memory of Z^T Y, which linear attention with phi = identity keeps, is the limit of ridge for a large penalty."""
    spec, episode = values
    penalty = 1e9
    _, predicted = answer({"name": "ridge", "penalty": penalty}, spec, episode)
    x, y, q = episode.support_x.double(), episode.support_y.double(), episode.query_x.double()
    memory = x.transpose(1, 2) @ y / (penalty * x.square().sum(-1).mean(1)[:, None, None])
    assert np.allclose(predicted, (q @ memory).numpy(), rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("name", ["nearest_mean", "knn", "ridge"])
def test_labels_drawn_at_random_leave_chance(name):
    """1 / K, and not a bit more: nothing but the labels of the stream tells a reference what the right answer is."""
    family = tasks.build({"name": "glyphs", "tasks": 5, "shots": 3, "queries": 4})
    episode = family.episodes("meta_train", range(100))
    order = torch.rand(episode.support_y.shape, generator=torch.Generator().manual_seed(0)).argsort(1)
    shuffled = dataclasses.replace(episode, support_y=episode.support_y.gather(1, order))
    right = scores(learners.build({"name": name}, family.spec)(shuffled).prediction, shuffled).mean(1)
    assert abs(float(right.mean()) - 1 / 5) < 4 * float(right.std()) / 10


@pytest.mark.parametrize("name", ["nearest_mean", "knn", "slda", "ridge", "random_ridge", "joint_sgd"])
def test_the_order_of_the_stream_does_not_matter(classes, name):
    spec, episode = classes
    order = torch.randperm(K * S, generator=torch.Generator().manual_seed(0))
    shuffled = dataclasses.replace(
        episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order]
    )
    _, before = answer({"name": name}, spec, episode)
    _, after = answer({"name": name}, spec, shuffled)
    assert np.array_equal(np.isfinite(before), np.isfinite(after))
    assert np.allclose(before[np.isfinite(before)], after[np.isfinite(before)], atol=1e-8)


def test_online_gradient_steps_forget():
    """Accuracy of early tasks is below that of late ones, and far below that of the same map trained jointly."""
    family = tasks.build({"name": "glyphs", "tasks": 10, "shots": 5, "queries": 2})
    episode = family.episodes("meta_train", range(16))

    def by_position(name):
        answers = learners.build({"name": name}, family.spec)(episode).prediction
        return scores(answers, episode).view(16, 10, 2).mean((0, 2))

    online, joint = by_position("online_sgd"), by_position("joint_sgd")
    assert online[-3:].mean() > online[:3].mean() + 0.2
    assert joint.mean() > online.mean() + 0.05


ANCHORS = {
    "nearest_mean": {"name": "nearest_mean"},
    "knn": {"name": "knn", "neighbours": 3},
    "knn kernel": {"name": "knn", "bandwidth": 0.5},
    "slda": {"name": "slda"},
    "ridge": {"name": "ridge", "penalty": 0.01},
    "random_ridge": {"name": "random_ridge", "penalty": 0.01, "features": 40},
    "online_sgd": {"name": "online_sgd"},
    "joint_sgd": {"name": "joint_sgd", "steps": 20},
}
"""Learners on raw numbers."""
CLASSES_ONLY = {"nearest_mean", "slda"}
STREAMS = st.builds(
    lambda **sizes: sizes,
    seed=st.integers(0, 1000),
    shots=st.integers(1, 8),
    features=st.integers(2, 30),
    offset=st.sampled_from([0.0, 3.0, 1000.0]),
)
SCALES = st.floats(-3, 4).map(lambda power: 10**power)


def stream(output, seed, shots, features, offset):
    """Spec and episode of vectors around the means of tasks, which are all that far from 0."""
    generator = torch.Generator().manual_seed(seed)
    means = offset + torch.randn(B, K, features, generator=generator)
    support, query = (
        means.repeat_interleave(n, 1) + torch.randn(B, K * n, features, generator=generator) for n in (shots, 2)
    )
    support_task, query_task = (torch.arange(K).repeat_interleave(n).expand(B, -1) for n in (shots, 2))
    targets = torch.randn(B, K, 4, generator=generator)
    values = {"support_y": targets.repeat_interleave(shots, 1), "query_y": targets.repeat_interleave(2, 1)}
    codes = {"support_y": support_task, "query_y": query_task}
    size = K + 2 if output == "classification" else 4
    return Spec(input="vector", shape=(features,), output=output, size=size, digest=""), Episode(
        support_x=support, support_task=support_task, query_x=query, query_task=query_task,
        query_after=torch.full((B, 2 * K), K * shots - 1), index=torch.arange(B), objective=output,
        **(codes if output == "classification" else values),
    )  # fmt: skip


def scaled(episode, scale):
    return dataclasses.replace(episode, support_x=episode.support_x * scale, query_x=episode.query_x * scale)


def doubled(episode):
    return dataclasses.replace(episode, support_x=episode.support_x.double(), query_x=episode.query_x.double())


def assert_same(found, expected, relative, output):
    """The same values, or the same classes but where the two largest logits are equal up to rounding."""
    if output == "regression":
        assert np.abs(found - expected).max() <= relative * np.abs(expected).max()
        return
    second, first = np.sort(expected, -1)[..., -2:].transpose(2, 0, 1)
    sure = first - second > 1e-5 * np.abs(expected[np.isfinite(expected)]).max()
    assert (found.argmax(-1) == expected.argmax(-1))[sure].all()


def on_raw_numbers(test):
    """Runs a test on drawn streams, for each learner on raw numbers and each output that it is made for."""
    cases = [
        (name, output)
        for name in ANCHORS
        for output in ("classification", "regression")
        if output == "classification" or name not in CLASSES_ONLY
    ]
    drawn = settings(max_examples=20, deadline=None)(given(sizes=STREAMS, scale=SCALES, unit=st.booleans())(test))
    return pytest.mark.parametrize(("name", "output"), cases)(drawn)


@on_raw_numbers
def test_single_precision_answers_what_double_does(name, output, sizes, scale, unit):
    spec, episode = stream(output, **sizes)
    config, episode = ANCHORS[name] | {"unit": unit}, scaled(episode, scale)
    (_, exact), (_, single) = (answer(config, spec, episode, dtype) for dtype in (torch.float64, torch.float32))
    assert single.dtype == np.float32
    assert_same(single, exact, 1e-4, output)


@on_raw_numbers
def test_the_scale_of_the_inputs_does_not_matter(name, output, sizes, scale, unit):
    spec, episode = stream(output, **sizes)
    config, episode = ANCHORS[name] | {"unit": unit}, doubled(episode)
    (_, before), (_, after) = (answer(config, spec, one) for one in (episode, scaled(episode, scale)))
    assert_same(after, before, 1e-6, output)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@settings(max_examples=20, deadline=None)
@given(sizes=STREAMS, scale=SCALES, penalty=st.sampled_from(RidgeConfig.choices["penalty"]))
def test_ridge_is_that_of_numpy_at_any_scale(dtype, bound, sizes, scale, penalty):
    spec, episode = stream("regression", **sizes)
    episode = scaled(episode, scale)
    _, predicted = answer({"name": "ridge", "penalty": penalty}, spec, episode, dtype)
    for b in range(B):
        x, y, q = rows(episode, b)
        shift = penalty * (x**2).sum(1).mean() * np.eye(x.shape[1])
        expected = q @ np.linalg.solve(x.T @ x + shift, x.T @ y.astype(np.float64))
        assert_same(predicted[b], expected, bound, "regression")


@pytest.mark.parametrize("output", ["classification", "regression"])
@pytest.mark.parametrize("config", ANCHORS.values(), ids=ANCHORS)
def test_before_the_first_example_no_code_is_known_and_values_are_zero(config, output):
    spec, episode = stream(output, seed=0, shots=1, features=3, offset=0.0)
    if output == "regression" and config["name"] in CLASSES_ONLY:
        return
    learner = learners.build(config, spec)
    prediction = learner.predict(learner.init_state(B), episode.query_x).prediction
    nothing = 0 if output == "regression" or "sgd" in config["name"] else -torch.inf
    assert torch.equal(prediction, torch.full_like(prediction, nothing))


@pytest.mark.parametrize("config", ANCHORS.values(), ids=ANCHORS)
def test_inputs_of_zero_are_no_error(config):
    spec, episode = stream("classification", seed=0, shots=2, features=3, offset=0.0)
    _, logits = answer(config, spec, scaled(episode, 0))
    assert not np.isnan(logits).any()


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_slda_of_one_example_a_class_is_the_nearest_mean(offset):
    """Its covariance is then nothing but rounding."""
    spec, episode = stream("classification", seed=0, shots=1, features=30, offset=offset)
    (_, expected), (_, logits) = (answer({"name": name}, spec, episode) for name in ("nearest_mean", "slda"))
    assert (logits.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_candidates_are_few_and_valid_and_begin_with_the_config_itself(name):
    config = CONFIGS[name]()
    candidates = config.candidates()
    assert candidates[0] == config
    assert len(set(candidates)) == len(candidates) <= 14
    assert all(type(config).model_validate(candidate.model_dump()) == candidate for candidate in candidates)
    for field, values in config.choices.items():
        assert getattr(config, field) in values
        assert {getattr(candidate, field) for candidate in candidates} == set(values)
        assert {getattr(candidate, field) for candidate in config.candidates([field])} == {getattr(config, field)}


def test_a_value_beside_the_grid_comes_first():
    config = RidgeConfig(penalty=0.3)
    assert [one.penalty for one in config.candidates(["unit"])] == [0.3, *RidgeConfig.choices["penalty"]]
    assert config.candidates(["unit", "penalty"]) == [config]
