"""Class-disjoint splits into meta-train, meta-validation, the classes that confirm what was chosen on it, and meta-test."""

from collections.abc import Mapping

import numpy as np

from mambacl.tasks.config import ConfigError
from mambacl.tasks.randomness import CHOOSING, Split, generator

SHARES: dict[Split, float] = {"meta_train": 0.60, "meta_val": 0.16, "meta_test": 0.24}
"""Of the classes. Those of meta-val are then halved: one half is meta-confirm."""
HALVED = 4
"""Classes from which on meta-val is halved: an episode of one class asks nothing."""


def split_classes(groups: np.ndarray, seed: int, test: np.ndarray | None = None) -> dict[Split, np.ndarray]:
    """Divide classes 0..C-1 among the splits, whole groups together, as near to SHARES as the groups allow.

    groups: (C,) the group of each class (alphabet, category); classes with a group of their own split freely. test: (C,)
    bool, the classes of an official meta-test split, which then holds them and no others.
    Returns the sorted class numbers of each split. Raises ConfigError with too few groups.
    """
    if test is None:
        classes = _divide(groups, seed, SHARES)
    else:
        rest = np.flatnonzero(~test)
        divided = _divide(groups[rest], seed, {split: SHARES[split] for split in ("meta_train", "meta_val")})
        classes: dict[Split, np.ndarray] = {split: rest[numbers] for split, numbers in divided.items()}
        classes["meta_test"] = np.flatnonzero(test)
    return classes | halve(classes["meta_val"], groups, seed)


def halve(classes: np.ndarray, groups: np.ndarray, seed: int) -> dict[Split, np.ndarray]:
    """Meta-val and meta-confirm, out of the classes of both: whole groups in each, unless one of them then had less than a third. They
    have the same classes where these are too few to halve.

    groups: (C,) of all classes.
    """
    if len(classes) < HALVED:
        return dict.fromkeys(CHOOSING, classes)
    even: dict[Split, float] = dict.fromkeys(CHOOSING, 0.5)
    own = groups[classes]
    halves: dict[Split, np.ndarray] = _divide(own, seed, even) if len(np.unique(own)) > 1 else {}
    if 3 * min(map(len, halves.values()), default=0) < len(classes):
        halves = _divide(np.arange(len(classes)), seed, even)
    return {split: classes[numbers] for split, numbers in halves.items()}


def check_disjoint(groups: np.ndarray, classes: Mapping[Split, np.ndarray]) -> None:
    """Raise ConfigError where two splits share a class, or classes of one group; meta-val and meta-confirm may, see `halve`."""
    seen: dict = {}
    for split, numbers in classes.items():
        for group in np.unique(groups[numbers]).tolist():
            other = seen.setdefault(group, split)
            if other != split and {other, split} != set(CHOOSING):
                raise ConfigError(f"task: {other} and {split} are not disjoint: both have classes of {group}")


def _divide(groups: np.ndarray, seed: int, shares: Mapping[Split, float]) -> dict[Split, np.ndarray]:
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < len(shares):
        raise ConfigError(f"task.group: {len(names)} groups cannot fill {len(shares)} disjoint splits")
    members: dict[Split, list] = {split: [] for split in shares}
    filled = dict.fromkeys(shares, 0)
    for done, position in enumerate(generator(seed, "class splits").permutation(len(names)).tolist()):
        empty: list[Split] = [split for split in shares if not members[split]]
        # The last groups are for splits that have none yet.
        open_to = empty if len(empty) == len(names) - done else list(shares)
        split = min(open_to, key=lambda s: (filled[s] + sizes[position]) / shares[s])
        members[split].append(names[position])
        filled[split] += int(sizes[position])
    return {split: np.flatnonzero(np.isin(groups, members[split])) for split in shares}
