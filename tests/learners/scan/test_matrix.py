"""The recurrences with a matrix state: every fast path against one token after the other, in values and gradients."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mambacl.learners.scan import matrix, matrix_chunked, matrix_fla, matrix_reference
from mambacl.learners.scan.writes import Writes

KINDS = {
    "linear attention": {},
    "shared keys, decay, strength": {"decay": 1, "strength": True, "shared": True},
    "decay": {"decay": 1},
    "delta": {"strength": True, "erase": True},
    "gated delta": {"decay": 1, "strength": True, "erase": True},
    "delta, decay by channel": {"decay": 5, "strength": True, "erase": True},
}
B, H, K, V = 2, 3, 5, 4


def writes(L, decay=0, strength=False, erase=False, shared=False, rate=1.0, seed=0, dtype=torch.float64, K=K):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    keys = 1 if shared else H
    w = Writes(
        query=normal(B, keys, L, K),
        key=torch.nn.functional.normalize(normal(B, keys, L, K), dim=-1),
        value=normal(B, H, L, V),
        log_decay=-rate * normal(B, H, L, min(decay, K)).exp() if decay else None,
        strength=normal(B, H, L).sigmoid() if strength else None,
        erase=erase,
    )
    fields = {f.name: getattr(w, f.name) for f in dataclasses.fields(w)}
    made = {n: x.to(dtype).requires_grad_() if isinstance(x, torch.Tensor) else x for n, x in fields.items()}
    return Writes(**made), normal(B, H, K, V).to(dtype).requires_grad_()


def outcome(module, w, state):
    """Outputs, final state, and the gradients of a weighted sum of both."""
    y, after = module.scan(w, state)
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros(())
    for x in (y, after):
        if x is not None:
            loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)).sum()
    inputs = [x for x in (w.query, w.key, w.value, w.log_decay, w.strength, state) if x is not None]
    return [
        x
        for x in (y, after, *torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))
        if x is not None
    ]


def assert_close(actual, expected, bound):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert torch.isfinite(a).all()
        assert (a - b).abs().max() <= bound * b.abs().max().clamp(min=1e-30)


@pytest.mark.parametrize("kind", KINDS)
@given(L=st.integers(1, 70), seed=st.integers(0, 9))
@settings(max_examples=8, deadline=None)
def test_chunks_equal_one_token_after_the_other(kind, L, seed):
    w, state = writes(L, **KINDS[kind], seed=seed)
    assert_close(outcome(matrix_chunked, w, state), outcome(matrix_reference, w, state), 1e-9)
    unread = dataclasses.replace(w, query=None)
    assert_close(outcome(matrix_chunked, unread, state), outcome(matrix_reference, unread, state), 1e-9)


@pytest.mark.parametrize("kind", ["shared keys, decay, strength", "gated delta", "delta, decay by channel"])
@pytest.mark.parametrize("rate", [0.0, 1e-4, 50.0])
def test_neither_weak_nor_strong_decay_overflows_in_float32(kind, rate):
    """exp(-G) of a chunk's sum would: its exponents reach thousands here."""
    w, state = writes(64, **KINDS[kind], rate=rate, dtype=torch.float32)
    assert_close(outcome(matrix_chunked, w, state), outcome(matrix_reference, w, state), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_is_the_next_token_of_a_stream(kind):
    w, state = writes(6, **KINDS[kind])
    answers = matrix.read(w, state)
    for m in range(6):
        one = Writes(
            **{
                f.name: x[:, :, m : m + 1] if isinstance(x := getattr(w, f.name), torch.Tensor) else x
                for f in dataclasses.fields(w)
            }
        )
        assert torch.allclose(answers[:, :, m : m + 1], matrix_reference.scan(one, state)[0], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_times_values_are_what_a_query_reads(kind):
    """The exact map: for the delta rule the closed form with the inverse of a triangular matrix."""
    w, state = writes(40, **KINDS[kind])
    queries, _ = writes(3, **KINDS[kind], seed=5)
    _, after = matrix_reference.scan(w, torch.zeros_like(state))
    unwritten = dataclasses.replace(queries, value=torch.zeros_like(queries.value))
    read = matrix.weights(w, queries) @ w.value
    assert torch.allclose(read, matrix.read(unwritten, after), atol=1e-12)


@pytest.mark.parametrize("kind", ["linear attention", "shared keys, decay, strength"])
def test_states_are_those_after_every_token(kind):
    w, state = writes(7, **KINDS[kind])
    every = matrix.states(w, state)
    for t in range(7):
        first = Writes(
            **{
                f.name: x[:, :, : t + 1] if isinstance(x := getattr(w, f.name), torch.Tensor) else x
                for f in dataclasses.fields(w)
            }
        )
        assert torch.allclose(every[:, :, t], matrix_reference.scan(first, state)[1])


def test_kernels_by_name():
    assert matrix.MATRIX.describe("cpu") == ("chunked", "fastest on cpu")
    w, state = writes(5, **KINDS["gated delta"])
    assert_close(matrix.scan(w, state, "reference"), matrix.scan(w, state), 1e-12)
    with pytest.raises(RuntimeError, match="fla runs on an NVIDIA GPU only"):
        matrix.scan(w, state, "fla")


@pytest.mark.skipif(not torch.cuda.is_available() or matrix_fla.missing() is not None, reason="needs a GPU and fla")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("L", [1, 63, 200])
def test_flash_linear_attention_equals_the_reference(kind, L):
    size = {"K": 16} | KINDS[kind]
    w, state = writes(L, **(size | {"decay": 16} if size.get("decay") == 5 else size), dtype=torch.float32)
    moved = Writes(
        **{f.name: x.cuda() if isinstance(x := getattr(w, f.name), torch.Tensor) else x for f in dataclasses.fields(w)}
    )
    expected = outcome(matrix_reference, w, state)
    assert_close([x.cpu() for x in outcome(matrix_fla, moved, state.cuda())], expected, 2e-2)
