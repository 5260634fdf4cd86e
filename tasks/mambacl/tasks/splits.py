"""Class-disjoint splits into meta-train, meta-validation and meta-test."""

import numpy as np

from mambacl.tasks.config import ConfigError
from mambacl.tasks.randomness import SPLITS, Split, generator

SHARES: dict[Split, float] = {"meta_train": 0.60, "meta_val": 0.16, "meta_test": 0.24}


def split_classes(groups: np.ndarray, seed: int) -> dict[Split, np.ndarray]:
    """Divide classes 0..C-1 among the splits, whole groups together, as near to SHARES as the groups allow.

    groups: (C,) the group of each class (alphabet, category); classes with a group of their own split freely.
    Returns the sorted class numbers of each split. Raises ConfigError with fewer than three groups.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < len(SPLITS):
        raise ConfigError(f"task.group: {len(names)} groups cannot fill {len(SPLITS)} disjoint splits")
    members: dict[Split, list] = {split: [] for split in SPLITS}
    filled = dict.fromkeys(SPLITS, 0)
    for position in generator(seed, "class splits").permutation(len(names)).tolist():
        split = min(SPLITS, key=lambda s: (filled[s] + sizes[position]) / SHARES[s])
        members[split].append(names[position])
        filled[split] += int(sizes[position])
    if not all(members.values()):
        raise ConfigError(f"task.group: {len(names)} groups leave a split without classes")
    return {split: np.flatnonzero(np.isin(groups, members[split])) for split in SPLITS}
