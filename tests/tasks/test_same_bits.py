"""Golden digests: episodes of a config stay what they were, so that old and new results stay comparable.

episodes.txt was written by the code before stream options existed, but for meta_val, meta_confirm and spec, which are those of the
code that first halved meta-val. A line is a case, a split and a digest of the episodes'
integers (images, codes, tasks, places of queries), with values rounded to 1e-4: processors differ in the last bits of a sine.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mambacl import tasks
from mambacl.tasks.randomness import SPLITS

GOLDEN = Path(__file__).with_name("episodes.txt")
NUMBERS = [0, 1, 2, 12345678901234]
CASES = {
    "glyphs": {"name": "glyphs", "augment": None, "tasks": 6, "shots": 3, "queries": 2, "vocabulary": 9},
    "glyphs, whole scripts": {"name": "glyphs", "augment": None, "by_script": True, "seed": 3},
    "images": {"name": "images", "augment": None, "tasks": 4, "shots": 2, "queries": 2},
    "images, groups": {"name": "images", "augment": None, "tasks": 3, "shots": 2, "queries": 1, "group": "alphabet"},
    "images, quarter turns": {
        "name": "images", "tasks": 6, "shots": 2, "queries": 1, "vocabulary": 20, "drop_small_classes": True,
        "augment": {"degrees": 0, "shift": 0, "scale": 0},
    },
    "sine": {"name": "sine", "tasks": 5, "shots": 3, "queries": 2, "seed": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """40 classes of 4 to 8 images whose pixels tell class and number, in groups of five classes."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    label = np.repeat(np.arange(40), [4 + c % 5 for c in range(40)])
    pixels = np.arange(len(label) * 8 * 8 * 3).reshape(len(label), 8, 8, 3) * 7919 % 251
    np.savez(path, images=pixels.astype(np.uint8), label=label, alphabet=label // 5)
    return path


def digest(episode, pixels=True):
    parts = []
    for name, value in sorted(vars(episode).items()):
        if isinstance(value, torch.Tensor) and (pixels or not name.endswith("_x")):
            whole = value if not value.is_floating_point() else (value.double() * 1e4).round().long()
            parts.append(f"{name} {whole.dtype} {tuple(whole.shape)} ".encode() + whole.contiguous().numpy().tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:24]


def lines(case, source):
    """What the golden file should say of a case. Pixels of glyphs are left out: they come from a font renderer."""
    config = CASES[case] | ({"path": str(source)} if CASES[case]["name"] == "images" else {})
    family, pixels = tasks.build(config), config["name"] != "glyphs"
    small = family.varied(tasks=2, shots=1, queries=3)
    made = {split: family.fitted(split).episodes(split, NUMBERS) for split in SPLITS} | {
        "resized": small.episodes("meta_test", NUMBERS)
    }
    found = [f"{case} | {name} | {digest(episode, pixels)}" for name, episode in made.items()]
    return [*found, f"{case} | spec | {family.spec.digest[:24]}"] if pixels else found


@pytest.mark.parametrize("case", CASES)
def test_episodes_have_the_digests_that_they_always_had(case, source):
    golden = [line for line in GOLDEN.read_text().splitlines() if line.startswith(f"{case} | ")]
    assert lines(case, source) == golden
