"""How many classes and images each public data set has, as published, so that studies can be planned before any is fetched.

`equal` and `listed` counts are those of the data. Of `spread` ones, number of classes, total, smallest and largest class are, and
the classes between are made up; of `even` ones, number of classes and total are. Comments say what is unverified.

Shapes: C classes, D domains.
"""

import dataclasses

import numpy as np

from mambacl.tasks.randomness import generator
from mambacl.tasks.sources.named.dataset import customary_test
from mambacl.tasks.sources.named.handwriting import CASIA_TEST
from mambacl.tasks.sources.named.objects import CELEB_LEAST, CELEB_TEST, CIFAR_TEST


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """What a data set has of each of its classes."""

    images: np.ndarray
    """(C,) int64 images of each class, or (C, D) of each class in each domain."""
    domains: tuple[str, ...] = ()
    """(D,) names of the domains; none where there are none."""
    group: np.ndarray | None = None
    """(C,) int64 the group of each class, or None where classes have no groups."""
    test: np.ndarray | None = None
    """(C,) bool: the classes that the official or customary split tests on, or None where there is none."""


def equal(classes: int, images: int) -> np.ndarray:
    """All classes have as many images."""
    return np.full(classes, images)


def listed(counts: str) -> np.ndarray:
    """The images of each class, written one after the other."""
    return np.array(counts.split(), np.int64)


def even(classes: int, total: int) -> np.ndarray:
    """As equal as the total allows."""
    return np.diff(np.round(np.linspace(0, total, classes + 1))).astype(np.int64)


def spread(classes: int, total: int, least: int, most: int) -> np.ndarray:
    """From the smallest class to the largest on two straight lines, whose bend makes the total right."""
    share = (total / classes - least) / (most - least)
    bend = round((1 - share) * (classes - 1))
    height = (2 * total - (bend + 1) * least - (classes - bend) * most) / (classes - 1)
    exact = np.interp(np.arange(classes), [0, bend, classes - 1], [least, height, most])
    return np.diff(np.round(np.cumsum(exact)), prepend=0).astype(np.int64)


def customary(classes: int, count: int) -> np.ndarray:
    """So many customary test classes, (C,) bool."""
    names = [str(c) for c in range(classes)]
    return np.isin(names, customary_test(names, count) or [])


def _omniglot() -> Counts:
    """Characters of the 30 background and the 20 evaluation alphabets; each was drawn by twenty people."""
    background = listed("20 29 26 41 40 24 46 14 26 34 33 22 26 43 24 48 22 16 52 47 40 26 40 41 33 14 42 23 17 55")
    evaluation = listed("20 26 26 26 26 26 45 45 41 26 47 40 30 45 46 28 23 25 42 26")
    alphabet = np.repeat(np.arange(50), np.concatenate([background, evaluation]))
    return Counts(equal(len(alphabet), 20), group=alphabet, test=alphabet >= len(background))


def _domainnet() -> Counts:
    """The cleaned version. Totals are published and quickdraw has 500 of each class; smallest and largest classes of the other
    domains are not, and are guessed: painting has next to none of one class, which its list of training images leaves out."""
    totals = {
        "clipart": spread(345, 48_129, 10, 340),
        "infograph": spread(345, 51_605, 10, 450),
        "painting": spread(345, 72_266, 2, 800),
        "quickdraw": equal(345, 500),
        "real": spread(345, 172_947, 30, 800),
        "sketch": spread(345, 69_128, 10, 650),
    }
    # The classes that are small in one domain are not those that are small in another.
    images = [generator(0, f"domainnet {name}").permutation(counts) for name, counts in totals.items()]
    return Counts(np.stack(images, axis=1), domains=tuple(totals))


def _imagenet_r() -> Counts:
    """How many images a style has is not published: those of a class are drawn from all styles alike. The smallest and largest
    class are unverified."""
    styles = "art cartoon deviantart embroidery graffiti graphic misc origami painting sculpture sketch sticker tattoo toy videogame"
    domains = tuple(styles.split())
    images = generator(0, "imagenet_r").multinomial(spread(200, 30_000, 51, 430), [1 / len(domains)] * len(domains))
    return Counts(images, domains=domains)


def _casia_hwdb() -> Counts:
    """HWDB1.0, 1.1 and 1.2, of 420, 300 and 300 writers. 1.0 and 1.2 share no character. Of those of 1.1, 3,740 are in 1.0, too, and
    15 in 1.2; 171 symbols are in all three."""
    first, second, third = even(3_866, 1_609_136), even(3_755, 1_121_749), even(3_319, 990_989)
    first[:3_740] += second[:3_740]
    third[:15] += second[3_740:]
    images = np.concatenate([first, third, even(171, 173_261)])
    return Counts(images, test=customary(len(images), CASIA_TEST))


# Unverified class by class; totals and ends are those that are published.
CALTECH101 = """
55 800 42 42 47 54 46 33 128 98 43 85 91 50 43 123 47 59 62 107 47 69 73 70 50 51 57 67 52 65 68 75 64 53 64 85 435
435 67 67 45 34 34 51 99 100 42 54 88 80 31 64 86 114 61 81 200 78 41 66 43 40 87 32 76 798 55 35 39 47 38 45 53 34 57
82 59 49 40 63 39 84 57 35 64 45 86 59 64 35 85 49 86 75 239 37 59 34 56 39 60
"""
FLOWERS102 = """
40 60 40 56 65 45 40 85 46 45 87 87 49 48 49 41 85 82 49 56 40 59 91 42 41 41 40 66 78 85 52 45 46 40 43 75 108 56 41
67 127 59 130 93 40 196 67 71 49 92 258 85 93 61 71 109 67 114 67 109 50 55 54 52 102 61 42 54 54 62 78 96 194 171 120
107 251 137 41 105 166 112 131 86 63 58 63 154 184 82 76 66 46 162 128 91 66 82 63 49 58 48
"""

CELEB_PEOPLE = 20_000
"""A fifth of those that MS-Celeb has, which is enough to plan with: all would take a second and 200 MB."""

COUNTS: dict[str, Counts] = {
    "omniglot": _omniglot(),
    "cifar100": Counts(equal(100, 600), test=customary(100, CIFAR_TEST)),
    "imagenet1k": Counts(spread(1_000, 1_281_167, 732, 1_300)),
    "imagenet_r": _imagenet_r(),
    # Smallest and largest class of these three are unverified.
    "cub200": Counts(spread(200, 11_788, 41, 60)),
    "cars": Counts(spread(196, 16_185, 48, 136)),
    "dogs": Counts(spread(120, 20_580, 148, 252)),
    "aircraft": Counts(equal(100, 100)),
    "domainnet": _domainnet(),
    "caltech101": Counts(listed(CALTECH101)),
    "flowers102": Counts(listed(FLOWERS102)),
    "emnist": Counts(equal(47, 2_800)),
    "casia_hwdb": _casia_hwdb(),
    # About 10 million images of 100,000 people are said to be there, so 100 of each; the largest class is guessed.
    "celeb": Counts(
        spread(CELEB_PEOPLE, 100 * CELEB_PEOPLE, CELEB_LEAST, 180), test=customary(CELEB_PEOPLE, CELEB_TEST)
    ),
}
