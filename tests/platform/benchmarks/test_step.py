"""What `bench step` compares: sides that answer and learn alike, and products that are really made."""

import pytest
import torch

from mambacl.platform.benchmarks import step
from mambacl.platform.benchmarks.others import QuadraticAttention, TransformersMamba
from mambacl.platform.benchmarks.sides import Sides

FEATURES = step.Setting(images=False, width=16, batch=2, tasks=3, shots=2)


def gradients(learner, episode):
    learner(episode).prediction[:, 0].square().sum().backward()
    return {name: parameter.grad for name, parameter in learner.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("images", [False, True])
def test_attention_with_one_mask_answers_and_learns_as_ours(images):
    setting = step.Setting(images, 16, 2, 3, 2)
    ours, episode = setting.learner("attention"), setting.episode()
    other = QuadraticAttention(ours, queries=3)
    assert torch.allclose(other(episode).prediction, ours(episode).prediction, atol=1e-5)
    expected = gradients(ours, episode)
    found = gradients(other, episode)
    assert all(torch.allclose(found[name], grad, atol=1e-4) for name, grad in expected.items())


def test_transformers_mamba_answers_and_learns_as_ours_where_no_query_stands_before():
    pytest.importorskip("transformers")
    ours, episode = FEATURES.learner("mamba"), FEATURES.episode()
    other = TransformersMamba(ours)
    found, expected = other(episode).prediction, ours(episode).prediction
    assert torch.allclose(found[:, 0], expected[:, 0], atol=1e-5)
    assert not torch.allclose(found[:, 1], expected[:, 1], atol=1e-3)
    learned, grads = gradients(other, episode), gradients(ours, episode)
    encoder = "encoder.layers.0.weight"
    assert torch.allclose(learned[encoder], grads[encoder], atol=1e-4)
    count = sum(parameter.numel() for parameter in ours.parameters())
    assert sum(parameter.numel() for parameter in other.parameters()) == count


def test_a_side_that_answers_otherwise_is_not_timed(monkeypatch, written):
    text = """
        from mambacl.platform.benchmarks import step
        from mambacl.platform.benchmarks.sides import Side

        def wrong(setting, other):
            side = step.other_side(setting, other)
            return Side(side.run, [1.01 * side.answers[0]]) if other == step.QUADRATIC else side
        """
    monkeypatch.setattr(step, "other_side", written(text).wrong)
    with Sides(1) as sides:
        rows = list(step.compared(sides, FEATURES, step.TARGETED, "tiny", others=True, least=1))
    [row] = [row for row in rows if row.median is None]
    assert (row.what, row.note) == (f"{FEATURES}: {step.QUADRATIC}", "answers otherwise than ours")
    assert not any("to attention under" in row.what for row in rows)


def test_products_of_a_step_are_counted_forward_and_backward():
    """The bound is the count at the rate of the large product: one of as many operations takes as long."""
    learner = FEATURES.learner("mamba")
    counted = step.products(FEATURES, learner, FEATURES.episode())
    B, T, M, D, N = 2, 6, 3, 16, step.STATE_SIZE
    E, R, L = 2 * D, 1, 2 * T
    examples, tokens = B * (T + M), B * L
    encoder = 2 * examples * D * D
    first = 2 * (tokens + B * M) * (D * 2 * E + E * (R + 2 * N) + R * E + E * D)
    last = 2 * tokens * (D * E + E * (R + 2 * N) + R * E) + 2 * B * M * (D * 2 * E + E * (R + 2 * N) + R * E + E * D)
    head = 2 * B * M * D * 3
    # Backward has two products for each, but for the encoder, whose input needs no gradient.
    assert counted == 2 * encoder + 3 * (first + last + head)
