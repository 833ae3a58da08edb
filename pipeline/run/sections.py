"""The sections of params.yaml, each with its own checks.

A failed check raises ValueError with the setting's name relative to its section; `load_settings` prefixes the section.
"""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self, TypeVar

from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bla.base.errors import BlaError
from bla.base.specs import (
    L2XF,
    Alternative,
    Backbone,
    BoundedLogits,
    ClutteredDigits,
    Count,
    Epochs,
    Images,
    L2XReading,
    Mnist,
    NoExplanation,
    Optimiser,
    Positive,
    Schedule,
    ThresholdRule,
)

PARAMS = Path("params.yaml")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]
"""Names are used in file and stage names: lower-case letters, digits and underscores."""


Runs = Annotated[int, Ge(ge=2), Le(le=1000)]
ImageCount = Annotated[int, Ge(ge=2), Le(le=10_000_000)]
Repeats = Annotated[int, Ge(ge=1), Le(le=1000)]
Digit = Annotated[int, Ge(ge=0), Le(le=9)]

Entry = TypeVar("Entry")


class Entries(dict[str, Entry]):
    """The entries of `dataset` or `variant` by name; a missing one is a BlaError."""

    def __missing__(self, name: str) -> NoReturn:
        raise BlaError(f"{PARAMS}: there is no entry {name}{did_you_mean(name, self)}; there are {', '.join(self)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt name, in brackets; empty if no known name is similar."""
    near = difflib.get_close_matches(str(name), [other for other in known if other != name], 1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def refuse_repetition(key: str, names: Sequence[object], what: str = "a name") -> None:
    """Raise ValueError if something is listed twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"{key}: {what} is listed twice")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetEntry(Strict):
    """Images, backbone and training: one row of Table 1."""

    images: Annotated[Images, Field(discriminator="kind")]
    backbone: Backbone
    training: Schedule

    @model_validator(mode="after")
    def images_and_backbone_are_possible(self) -> Self:
        images = self.images
        if isinstance(images, ClutteredDigits):
            if not images.fragment_size <= images.digit_size <= images.image_size:
                raise ValueError("images: needs fragment_size <= digit_size <= image_size")
            if len(images.classes) > min(images.train_images, images.test_images):
                raise ValueError("images: fewer images than classes")
        if isinstance(images, ClutteredDigits | Mnist):
            refuse_repetition("images.classes", images.classes, "a digit")
        noisy, draws = self.backbone.stochastic_depth > 0, self.backbone.draws
        if (noisy and draws < 5) or (not noisy and draws > 1):
            raise ValueError(
                f"backbone.draws: needs {'at least 5' if noisy else '1'}, not {draws}, "
                f"with stochastic_depth {self.backbone.stochastic_depth:g}; or set that to {'0' if noisy else '0.2'}"
            )
        return self


VariantEntry = Annotated[NoExplanation | BoundedLogits | L2XF, Field(discriminator="explanation")]


def with_baseline(variants: dict[str, VariantEntry]) -> Entries[VariantEntry]:
    """The entries of `variant`; ValueError if a baseline is wrong or a module cannot train."""
    if "bl" in variants:
        raise ValueError("bl: the name is taken: BL is the baseline and has no settings of its own")
    if not isinstance(variants.get("bl_plus"), NoExplanation):
        raise ValueError("bl_plus: must exist, with explanation none; it is the baseline that trains on")
    for name, variant in variants.items():
        indicator = isinstance(variant, BoundedLogits) and variant.threshold_rule == "indicator"
        if indicator and variant.head == "frozen":
            raise ValueError(f"{name}: the indicator has no gradient, so with a frozen head nothing trains")
    return Entries(variants)


def with_embedded(datasets: dict[str, DatasetEntry]) -> Entries[DatasetEntry]:
    """The entries of `dataset`; ValueError without the one on which the embedded backbone is trained."""
    embedded = datasets.get("cluttered_digits")
    if embedded is None or not isinstance(embedded.images, ClutteredDigits):
        raise ValueError("cluttered_digits: must stay, of kind cluttered_digits: it trains the embedded backbone")
    return Entries(datasets)


class Statistics(Strict):
    alpha: Annotated[float, Ge(ge=0.0001), Le(le=0.5)]
    resamples: Annotated[int, Ge(ge=99), Le(le=100_000)]


class Faithfulness(Strict):
    """How many images are explained, and how maps are measured."""

    images: ImageCount
    slow_images: ImageCount
    check_images: ImageCount
    run: Annotated[int, Ge(ge=0)]
    constant_maps: Literal["zero", "leave_out"]
    cells_at_once: Repeats
    orders: Repeats
    noise: Annotated[float, Ge(ge=0), Le(le=1)]
    retraining_images: Annotated[int, Ge(ge=32), Le(le=10_000_000)]

    @model_validator(mode="after")
    def fewer_are_of_more(self) -> Self:
        for more, fewer in (("images", "slow_images"), ("slow_images", "check_images")):
            if getattr(self, fewer) > getattr(self, more):
                raise ValueError(f"{fewer}: {getattr(self, fewer)} is more than {more}, {getattr(self, more)}")
        return self


class UnstatedChoices(Strict):
    """Datasets, runs and noise draws of the ablation of unstated choices."""

    datasets: list[str]
    runs: Runs
    draws: Annotated[int, Ge(ge=2), Le(le=1000)]


class TemperatureThreshold(Strict):
    """Datasets, temperatures, thresholds and runs of the sweep of BLA-T."""

    datasets: list[str]
    temperatures: Annotated[list[Positive], MinLen(min_length=1)]
    threshold_factors: Annotated[list[Annotated[float, Ge(ge=0), Le(le=1000)]], MinLen(min_length=1)]
    threshold_rules: Annotated[list[ThresholdRule], MinLen(min_length=1)]
    runs: Runs

    @model_validator(mode="after")
    def values_differ(self) -> Self:
        for field in ("temperatures", "threshold_factors", "threshold_rules"):
            refuse_repetition(field, getattr(self, field), "a value")
        return self


class AbandonedModules(Strict):
    """Datasets and runs of the modules that the paper abandoned."""

    datasets: list[str]
    runs: Runs
    variants: Annotated[dict[Name, Annotated[Alternative, Field(discriminator="explanation")]], MinLen(min_length=1)]

    @model_validator(mode="after")
    def bla_is_beside_them(self) -> Self:
        if "bla" in self.variants:
            raise ValueError("variants.bla: the name is taken: BLA always runs beside them")
        return self


class SmallModule(Strict):
    """BLA-T's settings in the small CNN."""

    temperature: Positive
    threshold_factor: Annotated[float, Ge(ge=0), Le(le=1000)]
    threshold_rule: ThresholdRule


class SmallNetwork(Strict):
    """Section 4.1: data, module and training of the small CNN. `images` is used for `digits` only."""

    data: Literal["digits", "mnist"]
    classes: tuple[Digit, Digit]
    images: Annotated[int, Ge(ge=20), Le(le=1_000_000)]
    runs: Runs
    module: SmallModule
    training: Optimiser

    @model_validator(mode="after")
    def classes_differ(self) -> Self:
        refuse_repetition("classes", self.classes, "a digit")
        return self


class L2XDigits(Strict):
    """L2X on section 4.1's digits: k of 49 patches, epochs and runs; the rest is as in `small_cnn`."""

    k: Annotated[int, Ge(ge=1), Le(le=48)]
    epochs: Epochs
    runs: Runs


class TwoNetworkL2X(Strict):
    """Section 4.1: two-network L2X. `readings` are possible meanings of the paper; the first is compared with the others."""

    datasets: list[str]
    readings: Annotated[dict[Name, L2XReading], MinLen(min_length=1)]
    k: Count
    training: Optimiser
    runs: Runs
    train_images: ImageCount
    test_images: ImageCount
    digits: L2XDigits
