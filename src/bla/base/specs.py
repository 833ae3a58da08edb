"""Specifications as plain data: images, backbone, training schedule, and the columns of Table 1.

They are sections of params.yaml and arguments of the library. This module imports nothing heavy.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

FORBID_EXTRA = {"extra": "forbid"}
"""Read by pydantic, which validates these classes for params.yaml: an unknown field is an error."""

Temperature = Annotated[float, Gt(gt=0), Le(le=1000)]
ThresholdFactor = Annotated[float, Ge(ge=0), Le(le=1000)]
LearningRate = Annotated[float, Gt(gt=0), Le(le=10)]
AdamEpsilon = Annotated[float, Gt(gt=0), Le(le=1)]
Count = Annotated[int, Ge(ge=1), Le(le=10_000_000)]
Epochs = Annotated[int, Ge(ge=1), Le(le=10_000)]

Share = Annotated[float, Gt(gt=0), Lt(lt=1)]
Side = Annotated[int, Ge(ge=32), Le(le=4096)]
ImageSize = Side | tuple[Side, Side]
"""In pixels: the side of a square, or height and width."""

Normalisation = Literal["imagenet", "keras_2021", "half", "half_keras_2021", "model"]
Resize = Literal["bilinear", "bilinear_antialias"]
MaskFormat = Literal["binary", "trimap", "voc", "alpha"]
"""Which pixels of a mask file are the object: `binary`, those at least half white in the image as it is seen, or 1 in a mask of
zeros and ones, or the lighter of two dark palette colours; `trimap`, those that are 1 (Oxford-IIIT Pet: 2 is background, 3 the border); `voc`, those of any palette entry but
0 (background) and 255 (void), as in PASCAL VOC; `alpha`, those at least half opaque."""
ThresholdRule = Literal["subtract", "renormalise", "indicator"]

TailSetting = Literal["pooled", "own_softmax", "own_sigmoid"]

HeadSetting = Literal["trained", "frozen", "trained_as_released", "trained_reloaded"]
"""What happens to the baseline's head while an explanation module trains.

`trained`: it trains too. `frozen`: it does not change (BLA-PH in the paper's text). `trained_as_released`: BLA-PH as in
the authors' code, which freezes the head too late, so that it trains too. `trained_reloaded`: it trains too, but the
module is evaluated with the baseline's head.
"""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """What all sources of images have in common.

    With `validation_images` the test images are not touched: that many training images stand for them, and the others
    are trained on. Settings are chosen this way.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    validation_images: Count | None = None


@dataclass(frozen=True, kw_only=True)
class PaintedBirds(ImageSource):
    """Birds painted by program, 16 species, or a pair that differs in one part (see `bla.datasets.painted_birds`).

    `bird_size` is the range of their lengths, as shares of the image's side; `leaves` and `loose_parts` are numbers of
    things around the bird, `noise` the deviation of pixel noise (1 is white).
    """

    kind: Literal["painted_birds"]
    differ_in: Literal["beak", "wing", "tail"] | None = None
    train_images: Count
    test_images: Count
    image_size: Side
    bird_size: tuple[Share, Share]
    leaves: Annotated[int, Ge(ge=0), Le(le=1000)]
    loose_parts: Annotated[int, Ge(ge=0), Le(le=1000)]
    noise: Annotated[float, Ge(ge=0), Le(le=1)]


@dataclass(frozen=True, kw_only=True)
class PaintedFlock(ImageSource):
    """Several painted birds of different species an image, one mask each (see `bla.datasets.painted_flock`).

    `species` is how many of the sixteen there are; `birds` are the smallest and the largest number in an image. The
    rest is as in `PaintedBirds`.
    """

    kind: Literal["painted_flock"]
    species: Annotated[int, Ge(ge=2), Le(le=16)]
    birds: tuple[Annotated[int, Ge(ge=0), Le(le=4)], Annotated[int, Ge(ge=1), Le(le=4)]]
    train_images: Count
    test_images: Count
    image_size: Side
    bird_size: tuple[Share, Share]
    leaves: Annotated[int, Ge(ge=0), Le(le=1000)]
    loose_parts: Annotated[int, Ge(ge=0), Le(le=1000)]
    noise: Annotated[float, Ge(ge=0), Le(le=1)]


@dataclass(frozen=True, kw_only=True)
class Photographs(ImageSource):
    """One of the paper's datasets, downloaded to the data root, resized to `image_size` pixels, not cropped."""

    kind: Literal["cats_vs_dogs", "stanford_dogs", "caltech_birds"]
    image_size: ImageSize
    resize: Resize = "bilinear"


@dataclass(frozen=True, kw_only=True)
class OxfordPet(ImageSource):
    """Oxford-IIIT Pet, downloaded: cat against dog (`species`) or the 37 `breeds`; its trimaps become masks."""

    kind: Literal["oxford_pet"]
    classes: Literal["species", "breeds"]
    image_size: ImageSize
    resize: Resize = "bilinear"


@dataclass(frozen=True, kw_only=True)
class PascalVoc(ImageSource):
    """PASCAL VOC 2007, downloaded: 20 classes, several an image, trained on train and val; masks for some test images."""

    kind: Literal["voc_2007"]
    image_size: ImageSize
    resize: Resize = "bilinear"


@dataclass(frozen=True, kw_only=True)
class Coco(ImageSource):
    """COCO 2014, downloaded: 80 classes, several an image, trained on train2014, tested on val2014."""

    kind: Literal["coco_2014"]
    image_size: ImageSize
    resize: Resize = "bilinear"


@dataclass(frozen=True, kw_only=True)
class Mnist(ImageSource):
    """Handwritten digits of some classes, downloaded; grey repeated to RGB and resized."""

    kind: Literal["mnist"]
    classes: Annotated[tuple[Annotated[int, Ge(ge=0), Lt(lt=10)], ...], MinLen(min_length=2)]
    image_size: Annotated[int, Ge(ge=28), Le(le=4096)]
    resize: Resize = "bilinear"


@dataclass(frozen=True, kw_only=True)
class ImageNet(ImageSource):
    """ImageNet on the user's disk: `path` holds the official archives, or `{train,val}/<wnid>/*.JPEG`."""

    kind: Literal["imagenet"]
    path: Annotated[str, MinLen(min_length=1)]
    image_size: ImageSize
    resize: Resize = "bilinear"


@dataclass(frozen=True, kw_only=True)
class ImageFolder(ImageSource):
    """Images in `path/{train,test}/<class>/*.jpg`, resized to `image_size` pixels, not cropped.

    A relative `path` starts at the data root. With a `test_share` the classes lie in `path/<class>` and a hash of the
    file names decides the split. `train_images_per_class` keeps the first images of each class. `masks` is the format
    of `path/masks/{train,test}/<class>/<name>.png`, None if there are no masks.
    """

    kind: Literal["image_folder"]
    path: Annotated[str, MinLen(min_length=1)]
    image_size: ImageSize
    resize: Resize = "bilinear"
    test_share: Share | None = None
    train_images_per_class: Count | None = None
    masks: MaskFormat | None = None


@dataclass(frozen=True, kw_only=True)
class ImageTable(ImageSource):
    """Images that `path/images.csv` lists, with the columns `file`, `split` (train or test) and `labels`.

    `labels`: `one` class per image, or `several`, separated by `|` (an image may then have none). `masks` is the format
    of `path/masks/<name>/<file>.png`, the mask of the class or part <name>; None if there are no masks. A relative
    `path` starts at the data root.
    """

    kind: Literal["image_table"]
    path: Annotated[str, MinLen(min_length=1)]
    labels: Literal["one", "several"]
    image_size: ImageSize
    resize: Resize = "bilinear"
    masks: MaskFormat | None = None


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """An `image_size` as height and width."""
    return (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])


Images = (
    PaintedBirds
    | PaintedFlock
    | Photographs
    | OxfordPet
    | PascalVoc
    | Coco
    | Mnist
    | ImageNet
    | ImageFolder
    | ImageTable
)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen network: its name (see `bla.networks.sources`), its weights and its input normalisation.

    `weights` is the path of a .safetensors or .pth file, a name on the timm hub that is pinned in `bla.networks.backbones`, or a
    package (`bla.networks.packaged`). `output_stride` is pixels per cell, None for the model's default. `tail` turns
    the feature map into class scores: `pooled` is average pooling and linear heads that are trained here; the others
    are the network's own layers after the map, whose weights are in the file.

    With `stochastic_depth` above 0 the *training* features are noisy, as in Keras, whose frozen extractor went on
    dropping residual branches: the last one with about this probability. `draws` noisy versions are stored.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    architecture: Annotated[str, MinLen(min_length=1)]
    weights: Annotated[str, MinLen(min_length=1)]
    normalisation: Normalisation
    output_stride: Count | None = None
    stochastic_depth: Annotated[float, Ge(ge=0), Lt(lt=1)] = 0
    draws: Count = 1
    tail: TailSetting = "pooled"


@dataclass(frozen=True, kw_only=True)
class L2XReading:
    """One reading of two-network L2X (`bla.experiments.two_network_l2x.l2x`). The temperature *multiplies*: 10 is Chen et al.'s 0.1.

    `background` fills hidden patches. With `straight_through` exactly k patches are shown during training too.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    temperature: Temperature
    background: Literal["black", "mean"]
    straight_through: bool


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """Training settings for Adam (paper: learning rate 1e-3; Keras' epsilon is 1e-7)."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    batch_size: Count
    epochs: Epochs
    learning_rate: LearningRate
    adam_epsilon: AdamEpsilon


@dataclass(frozen=True, kw_only=True)
class Schedule(Optimiser):
    """How heads and modules train on features (paper: batch 32, dropout 0.2).

    `images_in_memory` limits how many images' features are in memory at once (`bla.method.streaming`); None is all.
    """

    dropout: Annotated[float, Ge(ge=0), Lt(lt=1)]
    images_in_memory: Count | None = None


@dataclass(frozen=True, kw_only=True)
class NoExplanation:
    """BL and BL+: no module, every cell weighs 1/n. BL+ trains BL's head for as many further epochs as the variants."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    explanation: Literal["none"]
    head: Literal["trained"] = "trained"


@dataclass(frozen=True, kw_only=True)
class BoundedLogits:
    """BLA, and with a threshold BLA-T (head trained) and BLA-PH (head frozen); Baumhauer et al. 2021, section 3.1."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    explanation: Literal["bounded_logits"]
    head: HeadSetting
    temperature: Temperature
    threshold_factor: ThresholdFactor
    threshold_rule: ThresholdRule = "subtract"


@dataclass(frozen=True, kw_only=True)
class L2XF:
    """L2X-F: learning to explain (Chen et al. 2018) on the feature map, always with k cells; section 3.3."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    explanation: Literal["l2x_f"]
    head: HeadSetting
    temperature: Temperature
    k: Count


@dataclass(frozen=True, kw_only=True)
class ConceptVector:
    """Bounded logits of cells and one concept vector of the whole image, l_i = min(u.(g + f_i) + b, 0); section 3.3.

    g is a dense layer on all cells together (after Jetley et al. 2018): `linear`, as the paper says, or with the `relu`
    of its authors' code.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    explanation: Literal["concept_vector"]
    head: HeadSetting
    temperature: Temperature
    activation: Literal["linear", "relu"]


@dataclass(frozen=True, kw_only=True)
class Pointwise:
    """Pointwise attention: a sigmoid of each cell's bounded logit; section 3.3 and the authors' code."""

    __pydantic_config__: ClassVar = FORBID_EXTRA

    explanation: Literal["pointwise"]
    head: HeadSetting
    temperature: Temperature


Alternative = ConceptVector | Pointwise
"""Modules that the paper tried and abandoned (section 3.3)."""
Explaining = BoundedLogits | L2XF | Alternative
Variant = NoExplanation | Explaining
