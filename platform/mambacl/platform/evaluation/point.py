"""What a contestant is asked: episodes of some size, stream and noise, of one split of its task family."""

from typing import TYPE_CHECKING, Any

from mambacl.tasks.config import Config
from mambacl.tasks.noise_config import NoiseConfig
from mambacl.tasks.randomness import Split
from mambacl.tasks.stream_config import StreamConfig

if TYPE_CHECKING:
    from mambacl.tasks.family import Family


class Point(Config):
    """One point of a suite. What is left out is as in the task family."""

    where: dict[str, int | float | str]
    """Its place in the suite's tables and figures, such as {"tasks": 20, "shots": 5}."""
    tasks: int
    shots: int
    queries: int
    split: Split
    stream: StreamConfig | None = None
    noise: NoiseConfig | None = None
    domains: tuple[str, ...] | None = None
    """Domains in which the split's classes are seen."""
    classes: tuple[int, ...] | None = None
    """Classes of the split, by their numbers within the source; by default all."""
    layer: int | None = None
    """Layer whose associations are asked for."""
    augmented: bool = True
    """False: meta-train examples as they are in the data."""

    @classmethod
    def as_trained(cls, family: "Family", split: Split, where: dict[str, Any] | None = None, **changes: Any) -> "Point":
        """The family's own episodes, or what differs from them."""
        config = family.config
        sizes: dict[str, Any] = {"tasks": config.tasks, "shots": config.shots, "queries": config.queries}
        return cls(where=where or {}, split=split, **(sizes | changes))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the episodes, whatever they are called."""
        return self.model_dump(mode="json", exclude={"where"}, exclude_defaults=True)

    def of(self, family: "Family") -> "Family":
        """The family that makes these episodes. Raises ConfigError where it cannot."""
        if not self.augmented:
            family = family.unaugmented()
        family = family.varied(
            tasks=self.tasks, shots=self.shots, queries=self.queries, stream=self.stream, noise=self.noise
        )
        if self.classes is not None:
            family = family.among(self.split, self.classes)
        return family if self.domains is None else family.in_domains(self.split, self.domains)

    def fits(self, family: "Family") -> bool:
        """Whether the split has classes, images and label codes enough."""
        varied = self.of(family)
        limits = varied.limits(self.split)
        return varied.config.tasks <= limits["tasks"] and (
            varied.config.shot_range[1] + varied.config.queries <= limits["images"]
        )
