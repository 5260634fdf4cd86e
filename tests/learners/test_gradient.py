"""Inner gradient steps against plain loops of torch: values, and second-order meta-gradients."""

import pytest
import torch
from torch import nn

from mambacl import learners, tasks
from mambacl.learners.objective import losses

FAMILIES = {
    "glyphs": {"name": "glyphs", "tasks": 3, "shots": 2, "queries": 2, "vocabulary": 4},
    "sine": {"name": "sine", "tasks": 3, "shots": 2, "queries": 2},
}
B, T = 2, 6


def build(config, family, dtype=torch.float64):
    torch.manual_seed(0)
    source = tasks.build(FAMILIES[family])
    learner = learners.build(config, source.spec).to(dtype)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, dtype=dtype))
    return learner, source.episodes("meta_train", range(B))


def loss_of(prediction, y, spec):
    if spec.output == "classification":
        return nn.functional.cross_entropy(prediction, y)
    return (prediction - y).square().mean()


def followed(learner, episode, b):
    """The weights of one episode after its stream, by autograd.grad with a graph, and its predictions."""
    fast = {name: value[b] for name, value in learner.init_state(B).items()}
    rate = learner.log_rate.exp()
    for t in range(T):
        x, y = episode.support_x[b : b + 1, t : t + 1], episode.support_y[b, t : t + 1]
        prediction = learned(learner, fast, x)
        steps = torch.autograd.grad(loss_of(prediction, y, learner.spec), list(fast.values()), create_graph=True)
        fast = {name: value - rate * step for (name, value), step in zip(fast.items(), steps, strict=True)}
    return learned(learner, fast, episode.query_x[b : b + 1])


def learned(learner, fast, x):
    """Predictions (T, V) of one episode's own weights, written without batched weights."""
    if type(learner).__name__ == "Oml":
        z = learner.features(x)[0]
        return (z @ fast["weight0"] + fast["bias0"]).relu() @ fast["weight1"]
    x = x[0].double() / 127.5 - 1 if x.dtype == torch.uint8 else x[0].double()
    body = {name.removeprefix("fast."): value for name, value in fast.items() if name.startswith("fast.")}
    z = torch.func.functional_call(learner.fast, body, (x,)) * learner.gate(x).sigmoid()
    return z @ fast["head.weight"].T + fast["head.bias"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "config",
    [{"name": "oml", "width": 8, "hidden": 6}, {"name": "anml", "channels": [8, 8], "hidden": 6}],
    ids=["oml", "anml"],
)
def test_steps_and_second_order_gradients_equal_a_loop(config, family):
    learner, episode = build(config, family)
    ours = learner(episode).prediction
    theirs = torch.stack([followed(learner, episode, b) for b in range(B)])
    assert torch.allclose(ours, theirs, atol=1e-10)
    gradients = [
        torch.autograd.grad(losses(prediction, episode).mean(), list(learner.parameters()))
        for prediction in (ours, theirs)
    ]
    for (name, _), a, b in zip(learner.named_parameters(), *gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-9), name
    assert gradients[0][[name for name, _ in learner.named_parameters()].index("log_rate")].abs() > 0


@pytest.mark.parametrize("name", ["oml", "anml", "online_sgd"])
def test_inner_steps_are_taken_in_inference_mode_too(name):
    learner, episode = build({"name": name}, "glyphs", torch.float32)
    with torch.inference_mode():
        quiet = learner(episode).prediction
    assert torch.equal(quiet, learner(episode).prediction)


def plain_map(learner, episode, b):
    """A linear map of torch that starts at zero, and an episode's examples, labels and queries for it."""
    x, q = (part[b].flatten(1).float() / 127.5 - 1 for part in (episode.support_x, episode.query_x))
    linear = nn.Linear(x.shape[1], learner.spec.size)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear, x, episode.support_y[b], q


def take_step(optimizer, linear, x, y):
    optimizer.zero_grad()
    nn.functional.cross_entropy(linear(x), y).backward()
    optimizer.step()


def test_online_steps_are_those_of_torch():
    """Example by example; below the weights' step size the mean of |x|^2 so far, below that of the bias F."""
    learner, episode = build({"name": "online_sgd", "learning_rate": 0.5}, "glyphs", torch.float32)
    ours = learner(episode).prediction
    for b in range(B):
        linear, x, y, q = plain_map(learner, episode, b)
        optimizer = torch.optim.SGD([{"params": [linear.weight]}, {"params": [linear.bias]}], lr=0.5 / x.shape[1])
        for t in range(T):
            optimizer.param_groups[0]["lr"] = 0.5 / float(x[: t + 1].square().sum(1).mean())
            take_step(optimizer, linear, x[t : t + 1], y[t : t + 1])
        assert torch.allclose(ours[b], linear(q), atol=1e-5)


def test_joint_steps_are_those_of_torch():
    """On all examples, divided by their root mean square."""
    learner, episode = build({"name": "joint_sgd", "learning_rate": 0.5}, "glyphs", torch.float32)
    ours = learner(episode).prediction
    for b in range(B):
        linear, x, y, q = plain_map(learner, episode, b)
        scale = x.square().mean().sqrt()
        optimizer = torch.optim.SGD(linear.parameters(), lr=0.5 / x.shape[1], momentum=0.9)
        for _ in range(learner.steps):
            take_step(optimizer, linear, x / scale, y)
        assert torch.allclose(ours[b], linear(q / scale), atol=1e-4)
