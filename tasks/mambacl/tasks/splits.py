"""Class-disjoint splits into meta-train, meta-validation and meta-test."""

from collections.abc import Sequence

import numpy as np

from mambacl.tasks.config import ConfigError
from mambacl.tasks.randomness import SPLITS, Split, generator

SHARES: dict[Split, float] = {"meta_train": 0.60, "meta_val": 0.16, "meta_test": 0.24}


def split_classes(groups: np.ndarray, seed: int, test: np.ndarray | None = None) -> dict[Split, np.ndarray]:
    """Divide classes 0..C-1 among the splits, whole groups together, as near to SHARES as the groups allow.

    groups: (C,) the group of each class (alphabet, category); classes with a group of their own split freely. test: (C,)
    bool, the classes of an official meta-test split, which then holds them and no others.
    Returns the sorted class numbers of each split. Raises ConfigError with too few groups.
    """
    if test is not None:
        rest = np.flatnonzero(~test)
        divided = _divide(groups[rest], seed, SPLITS[:2])
        return {
            "meta_train": rest[divided["meta_train"]],
            "meta_val": rest[divided["meta_val"]],
            "meta_test": np.flatnonzero(test),
        }
    return _divide(groups, seed, SPLITS)


def check_disjoint(groups: np.ndarray, classes: dict[Split, np.ndarray]) -> None:
    """Raise ConfigError where two splits share a class, or classes of one group."""
    seen: dict = {}
    for split, numbers in classes.items():
        for group in np.unique(groups[numbers]).tolist():
            if (other := seen.setdefault(group, split)) != split:
                raise ConfigError(f"task: {other} and {split} are not disjoint: both have classes of {group}")


def _divide(groups: np.ndarray, seed: int, splits: tuple[Split, ...]) -> dict[Split, np.ndarray]:
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < len(splits):
        raise ConfigError(f"task.group: {len(names)} groups cannot fill {len(splits)} disjoint splits")
    members: dict[Split, list] = {split: [] for split in splits}
    filled = dict.fromkeys(splits, 0)
    for done, position in enumerate(generator(seed, "class splits").permutation(len(names)).tolist()):
        empty: list[Split] = [split for split in splits if not members[split]]
        # The last groups are for splits that have none yet.
        open_to: Sequence[Split] = empty if len(empty) == len(names) - done else splits
        split = min(open_to, key=lambda s: (filled[s] + sizes[position]) / SHARES[s])
        members[split].append(names[position])
        filled[split] += int(sizes[position])
    return {split: np.flatnonzero(np.isin(groups, members[split])) for split in splits}
