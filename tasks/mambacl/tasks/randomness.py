"""Counter-based randomness: what is drawn for an episode depends on its coordinates alone, never on what was drawn before."""

import hashlib
from typing import Literal

import numpy as np
from numpy.random import Generator, Philox

Split = Literal["meta_train", "meta_val", "meta_confirm", "meta_test"]
SPLITS: tuple[Split, ...] = ("meta_train", "meta_val", "meta_confirm", "meta_test")
"""What weights are trained on; what checkpoints, trials and fields are chosen on; what a choice is confirmed on before a model is
promoted; what is reported."""
CHOOSING: tuple[Split, ...] = ("meta_val", "meta_confirm")
"""Splits that may have fewer classes than an episode has tasks: theirs are then as long as they have classes."""


def generator(seed: int, stream: str, index: int = 0) -> Generator:
    """The generator of number `index` of the named stream, such as a split's episodes or a purpose.

    Philox keyed by (seed, stream) with the index in the counter's highest word: streams never overlap
    (each may draw 2**192 blocks) and any number can be reached at once, on any machine.
    """
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    return Generator(Philox(key=np.array([seed, name], np.uint64), counter=np.array([0, 0, 0, index], np.uint64)))


def first(keys: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` smallest random keys along the last axis, smallest first: a draw without replacement.

    A smaller count gives a prefix of a larger one, so a shorter episode holds the first tasks of a longer one.
    """
    if count < keys.shape[-1]:
        candidates = np.argpartition(keys, count - 1, axis=-1)[..., :count]
        order = np.argsort(np.take_along_axis(keys, candidates, axis=-1), axis=-1)
        return np.take_along_axis(candidates, order, axis=-1)
    return np.argsort(keys, axis=-1)
