"""Configs of the learners in closed form: anchors that need no meta-training, and learners that meta-train an encoder."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mambacl.learners.base_config import EncodedConfig, RawConfig


class NearestMeanConfig(RawConfig):
    """Nearest class mean on the raw input: nothing is trained. A learner that does not beat it has learnt nothing."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.nearest_mean:NearestMean"
    name: Literal["nearest_mean"] = "nearest_mean"
    """Which learner."""


class KnnConfig(RawConfig):
    """Nearest neighbours among all examples of the stream, which are kept: the state grows. Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.knn:Knn"
    name: Literal["knn"] = "knn"
    """Which learner."""
    neighbours: Annotated[int, Field(ge=1)] = 1
    """Examples that vote; a tie goes to the nearest."""
    bandwidth: Annotated[float, Field(gt=0)] | None = None
    """Let all examples vote instead, with weights exp(-d^2 / (2 bandwidth^2 F)), F the numbers of an example."""


class SldaConfig(RawConfig):
    """Streaming linear discriminant analysis: class means and one covariance. Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.slda:Slda"
    source: ClassVar[str] = "Hayes and Kanan, 2020"
    name: Literal["slda"] = "slda"
    """Which learner."""
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the mean variance, on all directions alike, in the covariance."""


class RidgeConfig(RawConfig):
    """Ridge regression onto label codes or values, by recursive least squares. Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.ridge:Ridge"
    name: Literal["ridge"] = "ridge"
    """Which learner."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Regularisation for each number of an example: lambda = penalty * F."""


class RandomRidgeConfig(RawConfig):
    """Ridge regression on random features, relu(R x). Nothing is trained."""

    implementation: ClassVar[str] = "mambacl.learners.closed_form.ridge:RandomRidge"
    source: ClassVar[str] = "McDonnell et al., 2023"
    memory: ClassVar[tuple[str, ...]] = ("features",)
    name: Literal["random_ridge"] = "random_ridge"
    """Which learner."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Regularisation for each feature: lambda = penalty * features."""
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
