"""What is known of each image of a source besides its pixels: class, domain, group."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from mambacl.tasks.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Labels:
    """n images of C classes in D domains, in the order of their classes: those of a class follow each other."""

    label: np.ndarray
    """(n,) int64 class numbers, never falling."""
    classes: np.ndarray
    """(C,) names of the classes."""
    group: np.ndarray
    """(C,) the group of each class (alphabet, category), which splits keep together; its own number where it has none."""
    domain: np.ndarray | None = None
    """(n,) int64 domain numbers, or None where the source has no domains."""
    domains: np.ndarray = dataclasses.field(default_factory=lambda: np.array([], str))
    """(D,) names of the domains."""
    test: np.ndarray | None = None
    """(C,) bool: the classes that the data set's official split tests on, or None where it has no such split."""

    @classmethod
    def of(
        cls,
        label: np.ndarray,
        group: np.ndarray | None = None,
        domain: np.ndarray | None = None,
        test: Sequence[str] | None = None,
    ) -> tuple[Self, np.ndarray]:
        """Labels of images given in any order, and the order (n,) in which to put the images.

        label, group, domain: (n,) a value an image, numbers or names; test: names of classes. Raises ConfigError where a
        class has images of several groups.
        """
        order = np.argsort(label, kind="stable")
        classes, start, number = np.unique(label[order], return_index=True, return_inverse=True)
        if group is None:
            groups = np.arange(len(classes))
        else:
            groups = group[order][start]
            if not np.array_equal(groups[number], group[order]):
                raise ConfigError("task.group: some class has images of more than one group")
        names, place = (
            np.unique(domain[order], return_inverse=True) if domain is not None else (np.array([], str), None)
        )
        known = classes.astype(str)
        return (
            cls(
                label=number.astype(np.int64),
                classes=known,
                group=groups,
                domain=None if place is None else place.astype(np.int64),
                domains=names.astype(str),
                test=None if test is None else np.isin(known, np.asarray(test, str)),
            ),
            order,
        )

    @property
    def count(self) -> np.ndarray:
        """(C,) int64: images of each class."""
        return np.bincount(self.label, minlength=len(self.classes))

    def only(self, images: np.ndarray) -> Self:
        """The labels of some images (numbers, or a mask), without the classes that are left with none."""
        label = self.label[images]
        left = np.unique(label)
        return dataclasses.replace(
            self,
            label=np.searchsorted(left, label),
            classes=self.classes[left],
            group=self.group[left],
            domain=None if self.domain is None else self.domain[images],
            test=None if self.test is None else self.test[left],
        )

    def named(self, classes: np.ndarray) -> Self:
        """The same with other names of the classes."""
        return dataclasses.replace(self, classes=classes.astype(str))

    def save(self, path: Path) -> None:
        """Write as .npz."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        np.savez(path, **{name: column for name, column in columns.items() if column is not None})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in file.files})
