"""Configs of the learners that take gradient steps along the stream."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mambacl.learners.base_config import EncodedConfig, LearnerBase, RawConfig


class OnlineSgdConfig(RawConfig):
    """A linear map trained by one gradient step an example, in the order of the stream: it forgets. Nothing is meta-trained."""

    implementation: ClassVar[str] = "mambacl.learners.gradient.sgd:OnlineSgd"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = RawConfig.choices | {
        "learning_rate": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    }
    name: Literal["online_sgd"] = "online_sgd"
    """Which learner."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """Step size, divided by the mean of |x|^2 over the examples so far, the current one among them: by an example's F numbers
    where their mean square is 1, as it always is for the bias."""


class JointSgdConfig(RawConfig):
    """A linear map trained anew on all examples so far whenever queries come: the state grows. Nothing is meta-trained."""

    implementation: ClassVar[str] = "mambacl.learners.gradient.sgd:JointSgd"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = RawConfig.choices | {
        "learning_rate": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    }
    name: Literal["joint_sgd"] = "joint_sgd"
    """Which learner."""
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    """Step size, divided by an example's F numbers: examples are first divided by their root mean square over the stream."""
    steps: Annotated[int, Field(ge=1)] = 100
    """Gradient steps on all examples together, with momentum 0.9."""


class OmlConfig(EncodedConfig):
    """OML: a meta-trained encoder and start of a small network that takes one gradient step an example."""

    implementation: ClassVar[str] = "mambacl.learners.gradient.oml:Oml"
    source: ClassVar[str] = "Javed and White, 2019"
    memory: ClassVar[tuple[str, ...]] = ("hidden",)
    name: Literal["oml"] = "oml"
    """Which learner."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Units of the fast network's hidden layers (the ancestors took 512)."""
    fast_layers: Annotated[int, Field(ge=1)] = 2
    """Linear layers of the fast network."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.03
    """Initial step size of the inner steps; it is learned."""


class AnmlConfig(LearnerBase):
    """ANML: the whole prediction network is fast, gated by a network that is not."""

    implementation: ClassVar[str] = "mambacl.learners.gradient.anml:Anml"
    source: ClassVar[str] = "Beaulieu et al., 2020"
    scale: ClassVar[tuple[str, ...]] = ("channels", "hidden")
    memory: ClassVar[tuple[str, ...]] = ("channels", "hidden")
    name: Literal["anml"] = "anml"
    """Which learner."""
    channels: tuple[Annotated[int, Field(ge=4, multiple_of=4)], ...] = (16, 32, 64, 128)
    """For images: channels after each convolution of either network; each halves the image's side."""
    first_stride: Literal[1, 2] = 2
    """For images: 1 for a first convolution that keeps the image's side (as the ancestors' does)."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """For vectors: units of the layers of either network."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Initial step size of the inner steps; it is learned."""
