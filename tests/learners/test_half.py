"""Training in bfloat16: autocast makes matrix products half, and recurrences stay in single precision."""

import pytest
import torch

from mambacl import learners
from mambacl.learners.registry import SHIPPED
from mambacl.tasks.episode import Episode, Spec

B, T, M, V = 2, 6, 3, 5
SPEC = Spec(input="vector", shape=(8,), output="classification", size=V, digest="")
CONVOLVED = [config.model_fields["name"].default for config in SHIPPED if "short_conv" in config.model_fields]


def episode():
    generator = torch.Generator().manual_seed(0)
    return Episode(
        support_x=torch.randn(B, T, 8, generator=generator),
        support_y=torch.randint(0, V, (B, T), generator=generator),
        support_task=torch.zeros(B, T, dtype=torch.int64),
        query_x=torch.randn(B, M, 8, generator=generator),
        query_y=torch.randint(0, V, (B, M), generator=generator),
        query_task=torch.zeros(B, M, dtype=torch.int64),
        query_after=torch.full((B, M), T - 1),
        index=torch.arange(B),
        objective="classification",
    )


KINDS = [
    *({"name": name, "short_conv": width, "positions": "sinusoidal"} for name in CONVOLVED for width in (0, 4)),
    *({"name": "transformer", "positions": positions} for positions in ("sinusoidal", "alibi", "rotary")),
    {"name": "transformer", "log_length": True},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_sequence_learners_train_under_autocast(kind):
    """Guards `train.precision: bfloat16`: without a short convolution, whose filters are float32, even more of the tokens
    are half."""
    torch.manual_seed(0)
    learner = learners.build({"width": 16, **kind}, SPEC)
    torch.nn.init.normal_(learner.head.weight)
    exact = learner(episode()).prediction
    state = learner.init_state(B)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = learner(episode(), layers=(-1,)).prediction
        for _ in range(2):
            state = learner.observe(state, episode().support_x, episode().support_y)
    prediction.float().sum().backward()
    assert (prediction - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)
    recurrent = [x for layer in state["layers"] for name, x in layer.items() if name in ("h", "S", "G")]
    assert all(x.dtype == torch.float32 for x in recurrent)
    assert recurrent or kind["name"] in ("attention", "transformer")
