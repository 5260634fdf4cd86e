"""Configs of the learners in closed form: anchors that need no meta-training, and learners that meta-train an encoder."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mambacl.learners.base_config import EncodedConfig, RawConfig

PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""To choose a ridge regression's penalty from."""


class NearestMeanConfig(RawConfig):
    """Nearest class mean on the raw input: nothing is trained. A learner that does not beat it has learnt nothing."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.nearest_mean:NearestMean"
    name: Literal["nearest_mean"] = "nearest_mean"
    """Which learner."""


class KnnConfig(RawConfig):
    """Nearest neighbours among all examples of the stream, which are kept: the state grows. Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.knn:Knn"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = RawConfig.choices | {"neighbours": (1, 3, 5, 9)}
    name: Literal["knn"] = "knn"
    """Which learner."""
    neighbours: Annotated[int, Field(ge=1)] = 1
    """Examples that vote; a tie goes to the nearest."""
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    """Let all examples vote instead, with weights exp(-d^2 / (2 bandwidth^2 s)), s the mean of |x|^2 over those of the stream."""


class SldaConfig(RawConfig):
    """Streaming linear discriminant analysis: class means and one covariance. Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.slda:Slda"
    source: ClassVar[str] = "Hayes and Kanan, 2020"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = RawConfig.choices | {"shrinkage": (0.03, 0.1, 0.3, 0.5, 0.7, 0.9)}
    name: Literal["slda"] = "slda"
    """Which learner."""
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the mean variance, on all directions alike, in the covariance."""


class RidgeConfig(RawConfig):
    """Ridge regression onto label codes or values, exactly, from sums over the stream. Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.ridge:Ridge"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = RawConfig.choices | {"penalty": PENALTIES}
    name: Literal["ridge"] = "ridge"
    """Which learner."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Regularisation as a share of the inputs' size: lambda = penalty * mean of |x|^2 over the examples so far, which is
    penalty * F where the mean square of an example's F numbers is 1."""


class RandomRidgeConfig(RawConfig):
    """Ridge regression on random features, relu(R x). Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.ridge:RandomRidge"
    source: ClassVar[str] = "McDonnell et al., 2023"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = RawConfig.choices | {"penalty": PENALTIES}
    memory: ClassVar[tuple[str, ...]] = ("features",)
    name: Literal["random_ridge"] = "random_ridge"
    """Which learner."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Regularisation as a share of the features' size: lambda = penalty * mean of |relu(R x)|^2 over the examples so far."""
    features: Annotated[int, Field(ge=1)] = 2000
    """Random features; the state holds their square."""


class PrototypesConfig(EncodedConfig):
    """Prototypical network: nearest class mean in the space of a meta-trained encoder."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.prototypes:Prototypes"
    source: ClassVar[str] = "Snell et al., 2017"
    name: Literal["prototypes"] = "prototypes"
    """Which learner."""


class GemclConfig(EncodedConfig):
    """GeMCL: Gaussian classes with a meta-trained prior on their variances."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.gemcl:Gemcl"
    source: ClassVar[str] = "Banayeeanzade et al., 2021"
    name: Literal["gemcl"] = "gemcl"
    """Which learner."""
    alpha: Annotated[float, Field(gt=0)] = 100.0
    """Initial shape of the inverse-gamma prior; it is learned."""
    beta: Annotated[float, Field(gt=0)] = 1000.0
    """Initial scale of the inverse-gamma prior; it is learned."""
    compat: bool = False
    """Weigh the logarithm of the variance twice, as Lee et al. (2023) do, instead of by the exact predictive."""


class AlpacaConfig(EncodedConfig):
    """ALPaCA: Bayesian linear regression with meta-trained features and prior. For values."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.alpaca:Alpaca"
    source: ClassVar[str] = "Harrison et al., 2018"
    name: Literal["alpaca"] = "alpaca"
    """Which learner."""
    precision: Annotated[float, Field(gt=0)] = 1.0
    """Initial prior precision of every weight; the whole matrix is learned."""
