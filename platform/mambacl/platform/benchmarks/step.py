"""A whole step of meta-training, from examples to new weights, beside what users would otherwise take.

The episodes are there: `tasks` says what making them costs. A step has no selectivity term, which not all sides know.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mambacl.learners.fused import linear
from mambacl.learners.learner import Learner
from mambacl.learners.registry import build as build_learner
from mambacl.learners.scan import selective_read, selective_scan
from mambacl.platform.benchmarks.measure import Row, Scope, differs, measure
from mambacl.platform.benchmarks.others import QuadraticAttention, TransformersMamba
from mambacl.platform.benchmarks.scan import inputs
from mambacl.platform.benchmarks.sides import Side, Sides
from mambacl.platform.config import ExperimentConfig
from mambacl.platform.training.optimizer import build_optimizer
from mambacl.platform.training.step import Stepper
from mambacl.platform.training.worker import Worker
from mambacl.tasks.config import parse
from mambacl.tasks.episode import Episode
from mambacl.tasks.registry import build as build_family

NAMES = ("mamba", "attention", "mamba2", "linear_attention", "gated_deltanet")
TARGETED = NAMES[:2]
THEIRS, QUADRATIC = "transformers' Mamba", "attention under one mask"
RIVALS = {QUADRATIC: ("attention", slice(None)), THEIRS: ("mamba", slice(1))}
"""What others would build, beside which of ours, and the queries that it answers alike."""
LAYERS, STATE_SIZE = 2, 16
WIDTHS = (128, 256, 512)

SIDE = 1024
"""Of the square matrices whose product, by the library that learners take, is the peak that all products are measured by."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a step is of."""

    images: bool
    """Images and the encoder that is meta-trained with the rest, or features that a linear map makes tokens of."""
    width: int
    batch: int
    tasks: int
    shots: int

    def __str__(self) -> str:
        kind = "images" if self.images else "features"
        return f"{self.batch} x {self.tasks} x {self.shots} {kind}, width {self.width}"

    def experiment(self, name: str) -> ExperimentConfig:
        """Of a learner, at its own defaults but for the size."""
        task = {"name": "glyphs"} if self.images else {"name": "recall", "dimensions": max(self.width, self.tasks)}
        encoder = {"name": "cnn"} if self.images else {"name": "mlp", "layers": 1}
        learner: dict[str, Any] = {"name": name, "layers": LAYERS, "width": self.width, "encoder": encoder}
        content = {
            "name": "bench",
            "task": task | {"tasks": self.tasks, "shots": self.shots},
            "learner": learner | ({"state_size": STATE_SIZE} if name == "mamba" else {}),
            "selectivity": {"loss": "none"},
            "train": {"batch": self.batch},
        }
        return parse(ExperimentConfig, content)

    def episode(self) -> Episode:
        """A batch of them."""
        return build_family(self.experiment("mamba").task).episodes("meta_train", range(self.batch))

    def learner(self, name: str) -> Learner:
        """With noise on all weights: fresh ones are neutral in parts, and sides that differ there would answer alike."""
        config = self.experiment(name)
        torch.manual_seed(0)
        learner = build_learner(config.learner, build_family(config.task).spec)
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return learner

    def step(self, name: str, learner: Learner, episode: Episode) -> Callable[[], Tensor]:
        """A step of a learner that is trained as the one of this name."""
        config = self.experiment(name)
        stepper = Stepper(learner, build_optimizer(learner, config.train), config, Worker())
        return lambda: stepper.step(lambda numbers: episode, range(self.batch), 0)


def rows(scope: Scope) -> Iterator[Row]:
    """Streams of 200 tokens at several widths, then of 2,000: of as many episodes, and of a quarter of them."""
    names = TARGETED if scope == "quick" else NAMES
    tasks, shots, batch = (3, 2, 2) if scope == "tiny" else (20, 5, 16)
    widths = {"full": WIDTHS, "quick": WIDTHS[:1], "tiny": (16,)}[scope]
    images = Setting(True, widths[0], batch, tasks, shots)
    with Sides(torch.get_num_threads()) as sides:
        for setting in (*(Setting(False, width, batch, tasks, shots) for width in widths), images):
            others = scope == "full" or setting is not images
            yield from compared(sides, setting, names, scope, others, least=1)
            yield from peak_rows(setting, scope)
        for episodes in (batch, batch // 4 or 1):
            long = dataclasses.replace(images, images=False, shots=10 * shots, batch=episodes)
            yield from compared(sides, long, TARGETED, scope, others=False, least=3)


def compared(
    sides: Sides, setting: Setting, names: Sequence[str], scope: Scope, others: bool, least: float
) -> Iterator[Row]:
    """Times of our learners and, if asked for, of those that others would build; what answers otherwise is not timed.

    least: how many times faster than our attention our mamba is to be.
    """
    threads = torch.get_num_threads()
    makes = {name: partial(our_side, setting, name) for name in names}
    for other in RIVALS if others else ():
        if other == THEIRS and not importlib.util.find_spec("transformers"):
            yield Row(f"{setting}: {other}", note="needs the package transformers: pip install 'mambacl[bench]'")
        else:
            makes[other] = partial(other_side, setting, other)
    found = sides.make(makes)
    for other in RIVALS.keys() & found.keys():
        name, queries = RIVALS[other]
        if differs(found[other][0][:, queries], found[name][0][:, queries]):
            yield Row(f"{setting}: {other}", note="answers otherwise than ours")
            del found[other]
    seconds = sides.measure([*found], scope, seconds=5.0)
    for name, column in seconds.items():
        yield Row.of(f"{setting}: {name}", "ms", 1e3 * column, threads)
    for name, other, above in (
        ("mamba", THEIRS, 5),
        ("mamba", "attention", least),
        ("attention", QUADRATIC, None),
    ):
        if other in seconds:
            ratio = seconds[other] / seconds[name]
            yield Row.of(f"{setting}: {name} to {other}", "x", ratio, threads, above=above)


def our_side(setting: Setting, name: str) -> Side:
    return side(setting, name, setting.learner(name))


def other_side(setting: Setting, other: str) -> Side:
    """What others would build, with the weights of ours."""
    name, _ = RIVALS[other]
    ours: Any = setting.learner(name)
    rival = TransformersMamba(ours) if other == THEIRS else QuadraticAttention(ours, setting.episode().query_y.shape[1])
    return side(setting, name, rival)


def side(setting: Setting, name: str, learner: Learner) -> Side:
    """Steps of a learner, and the predictions (B, M, V) that it makes before them."""
    episode = setting.episode()
    with torch.no_grad():
        answer = learner(episode).prediction
    return Side(setting.step(name, learner, episode), [answer])


def peak_rows(setting: Setting, scope: Scope) -> Iterator[Row]:
    """What a step of mamba takes beside its scans, against its products of matrices and convolutions alone at the rate of a
    large product: what is between them is norms, gates, the short convolution, copies, and the optimiser."""
    episode, learner, threads = setting.episode(), setting.learner("mamba"), torch.get_num_threads()
    flops, side = products(setting, learner, episode), 64 if scope == "tiny" else SIDE
    step = setting.step("mamba", learner, episode)
    a, b = torch.randn(2, side, side)
    recurrences = scans(learner, episode)
    whole, scan, product = measure([step, recurrences, lambda: linear(a, b)], threads, scope, seconds=5.0).T
    bound = product * flops / (2 * side**3)
    yield Row.of(f"{setting}: mamba's scans alone", "ms", 1e3 * scan, threads)
    yield Row.of(f"{setting}: mamba's products at the peak", "ms", 1e3 * bound, threads)
    share = 100 * bound / (whole - scan)
    yield Row.of(f"{setting}: mamba without scans, share of the peak", "%", share, threads, above=70)


def products(setting: Setting, learner: Learner, episode: Episode) -> int:
    """Floating-point operations of a step in products of matrices and convolutions: the kernels of scans are none of torch's
    operations, and not counted."""
    with FlopCounterMode(display=False) as counter:
        setting.step("mamba", learner, episode)()
    return counter.get_total_flops()


def scans(learner: Learner, episode: Episode) -> Callable[[], object]:
    """The recurrences of all layers of a mamba with their gradients, on the shapes that an episode has."""
    mixers = [block.mixer for block in learner.blocks]  # type: ignore[union-attr]
    B, M = episode.query_task.shape
    stream = inputs((B, 2 * episode.support_task.shape[1], *mixers[0].A_log.shape))
    asked = inputs((B, M, *mixers[0].A_log.shape))
    u, delta, A, b, c, D = stream
    asked_u, asked_delta, asked_A, asked_b, asked_c, asked_D = asked

    def run() -> None:
        for mixer in mixers:
            wanted = mixer is not mixers[-1]
            h = mixer.init_state(B)["h"]
            y, h = selective_scan(u, delta, A, b, c if wanted else None, D if wanted else None, h)
            total = selective_read(asked_u, asked_delta, asked_A, asked_b, asked_c, asked_D, h).sum()
            torch.autograd.grad(total if y is None else total + y.sum(), stream + asked, allow_unused=True)

    return run
