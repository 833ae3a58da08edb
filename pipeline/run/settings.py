"""The model of params.yaml, section by section.

Every stage checks the whole file, so that a wrong setting anywhere stops the stage before it changes a result. A failed
check raises ValueError with the setting's name within its section; `load_settings` adds the section's name.
"""

import difflib
import re
import reprlib
from collections.abc import Collection, Iterable
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, Field, ValidationError, model_validator

from bla.base.errors import BlaError
from bla.base.specs import (
    L2XF,
    Alternative,
    Backbone,
    BoundedLogits,
    Coco,
    ConceptVector,
    Count,
    Epochs,
    ImageFolder,
    ImageNet,
    ImageTable,
    L2XReading,
    Mnist,
    NoExplanation,
    Optimiser,
    OxfordPet,
    PaintedBirds,
    PaintedFlock,
    PascalVoc,
    Photographs,
    Pointwise,
    Schedule,
    Temperature,
    ThresholdFactor,
    ThresholdRule,
)
from pipeline.run.dataset_entry import DatasetEntry, Name, Strict, has_several_classes, refuse_repetition
from pipeline.run.params_file import read_params

PARAMS = Path("params.yaml")
DATASETS, METRICS = Path("data/datasets.json"), Path("reports/metrics.json")
METHODS, NOTEBOOKS = Path("src/bla/explainers"), Path("reports/notebooks")
ALWAYS = ("lime", "attention")
"""Methods that may not be listed under `explainers`: LIME and the variants' modules are always included."""
SHORT = reprlib.Repr()
"""How values are shown in messages: nested or long ones cut, since aliases of a few lines can make gigabytes."""
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxother, SHORT.maxlong = 3, 20, 20, 200, 200, 200
OF_DATASETS = (
    "unstated_choices",
    "temperature_threshold",
    "abandoned_modules",
    "two_network_l2x",
    "multi_label",
    "planted_bias",
)
"""Experiments with their own list of datasets."""
SPECS = (
    *(Backbone, BoundedLogits, Coco, ConceptVector, ImageFolder, ImageNet, ImageTable, L2XF, L2XReading),
    *(Mnist, NoExplanation, OxfordPet, PaintedBirds, PaintedFlock, PascalVoc, Photographs, Pointwise, Schedule),
)

MOST_ERRORS = 20
"""Wrong settings that are listed; a file can have thousands."""

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


class Statistics(Strict):
    alpha: Annotated[float, Ge(ge=0.0001), Le(le=0.5)]
    resamples: Annotated[int, Ge(ge=99), Le(le=100_000)]


class Faithfulness(Strict):
    """How many images are explained, and how maps are measured."""

    left_out: list[str]
    images: ImageCount
    slow_images: ImageCount
    check_images: ImageCount
    run: Annotated[int, Ge(ge=0)]
    occluded_runs: Annotated[int, Ge(ge=1), Le(le=10_000)]
    constant_maps: Literal["zero", "leave_out"]
    cells_at_once: Repeats
    orders: Repeats
    tied_pixels: Literal["orders", "last"]
    noise: Annotated[float, Ge(ge=0), Le(le=1)]
    random_draws: Repeats
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
    images: ImageCount
    runs: Runs
    draws: Annotated[int, Ge(ge=2), Le(le=1000)]


class TemperatureThreshold(Strict):
    """Datasets, temperatures, thresholds and runs of the sweep of BLA-T."""

    datasets: list[str]
    temperatures: Annotated[list[Temperature], MinLen(min_length=1)]
    threshold_factors: Annotated[list[ThresholdFactor], MinLen(min_length=1)]
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
    """BLA-T's settings outside Table 1."""

    temperature: Temperature
    threshold_factor: ThresholdFactor
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


class SubsetSelection(Strict):
    """BLA-T and L2X on synthetic samples whose relevant features are known."""

    train_samples: Annotated[int, Ge(ge=2), Le(le=1_000_000)]
    test_samples: Annotated[int, Ge(ge=20), Le(le=10_000)]
    runs: Runs
    l2x_temperature: Temperature
    module: SmallModule
    training: Optimiser


class MultiLabel(Strict):
    """Datasets with several classes an image: methods, runs, and how many test images are measured."""

    datasets: Annotated[list[str], MinLen(min_length=1)]
    explainers: list[str]
    learned_explainers: list[str]
    runs: Runs
    images: ImageCount


class PlantedBias(Strict):
    """A cue that goes with one class in training: its size, and the methods that must show it."""

    datasets: list[str]
    methods: list[str]
    cue_size: Annotated[float, Ge(ge=0.02), Le(le=0.5)]
    images: ImageCount
    runs: Runs


class XFeatures(Strict):
    """How x-features are drawn."""

    heat_map: Literal["grad_cam", "i_gos"]


class Settings(Strict):
    """The whole of params.yaml."""

    datasets: Annotated[list[str], MinLen(min_length=1)]
    variants: Annotated[list[str], MinLen(min_length=1)]
    explainers: list[str]
    learned_explainers: list[str]
    reports: Annotated[list[str], MinLen(min_length=1)]
    runs: Runs
    seed: Annotated[int, Ge(ge=0), Le(le=2**62)]
    gallery_images: Count | None
    """None: all test images."""
    dataset: Annotated[dict[Name, DatasetEntry], AfterValidator(Entries)]
    variant: Annotated[dict[Name, VariantEntry], AfterValidator(with_baseline)]
    explainer: dict[Name, dict[str, Any]]
    """Checked by the methods themselves (`pipeline.run.methods`)."""
    faithfulness: Faithfulness
    unstated_choices: UnstatedChoices
    temperature_threshold: TemperatureThreshold
    abandoned_modules: AbandonedModules
    small_cnn: SmallNetwork
    two_network_l2x: TwoNetworkL2X
    subset_selection: SubsetSelection
    multi_label: MultiLabel
    planted_bias: PlantedBias
    x_features: XFeatures
    statistics: Statistics

    @model_validator(mode="after")
    def names_exist(self) -> Self:
        methods = [path.stem for path in sorted(METHODS.glob("*/[!_]*.py"))]
        listed = [name for name in methods if name not in ALWAYS]
        reports = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
        places: list[tuple[str, Collection[str], str]] = [
            *((key, self.dataset, "`dataset`") for key in ("datasets", *(f"{key}.datasets" for key in OF_DATASETS))),
            ("faithfulness.left_out", self.dataset, "`dataset`"),
            ("variants", self.variant, "`variant`"),
            *(
                (f"{of}{key}", listed, str(METHODS))
                for of in ("", "multi_label.")
                for key in ("explainers", "learned_explainers")
            ),
            ("planted_bias.methods", [*listed, *self.variant], f"{METHODS} or `variant`"),
            ("reports", reports, str(NOTEBOOKS)),
        ]
        for key, known, place in places:
            names: list[str] = attrgetter(key)(self)
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: there is no {name} under {place}{did_you_mean(name, known)}")
            refuse_repetition(key, names)
        for name in self.multi_label.datasets:
            if not has_several_classes(self.dataset[name].images):
                raise ValueError(f"multi_label.datasets: images of {name} have one class each; list it under datasets")
            if self.dataset[name].has_own_head:
                raise ValueError(
                    f"multi_label.datasets: {name} has classifier own, but heads are trained there; list it under datasets"
                )
        for name in self.variants:
            if isinstance(self.variant[name], NoExplanation):
                raise ValueError(f"variants: {name} has no explanation; the baselines BL and BL+ always run")
        for name in self.variant:
            if name in (*methods, "mask"):
                raise ValueError(f"variant.{name}: the name is taken: it is an explanation method (`explainers`)")
        return self

    @model_validator(mode="after")
    def the_run_measured_is_one_of_them(self) -> Self:
        if self.faithfulness.run >= self.runs:
            last = f"the last of {self.runs} is {self.runs - 1}"
            raise ValueError(f"faithfulness.run: there is no run {self.faithfulness.run}; {last}")
        return self


def load_settings(path: Path = PARAMS) -> Settings:
    """Read and check params.yaml; BlaError lists every wrong setting by its full name, one line each."""
    raw = read_params(path)
    if not isinstance(raw, dict):
        raise BlaError(f"{path}: must hold settings by name")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        first, more = error.errors()[:MOST_ERRORS], max(0, error.error_count() - MOST_ERRORS)
        lines = {_name(e, raw): explain_error(e, raw) for e in reversed(first)}  # the first error of each setting
        # If a setting may have two types, the error deeper inside is that of the intended type.
        shown = [
            line for name, line in lines.items() if not any(other.startswith(f"{name}.") for other in lines) or not name
        ]
        shown = [f"and {more:,} more wrong settings"] * (more > 0) + shown
        raise BlaError("\n".join(f"{path}: {line}" for line in reversed(shown))) from error


def _name(error: Any, raw: Any) -> str:
    """The full name in params.yaml of the setting in a pydantic error."""
    names, section = [], raw
    for step in error["loc"]:
        if (isinstance(section, dict) and step in section) or (isinstance(section, list) and isinstance(step, int)):
            section = section[step]
            names.append(str(step))
    return ".".join([*names, str(error["loc"][-1])] if error["type"] == "missing" else names)


def explain_error(error: Any, raw: Any, known: Iterable[str] | None = None) -> str:
    """One line for a pydantic error: the setting's full name in params.yaml, and what is wrong with it.

    `known` are the names to suggest for a misspelt one (default: all settings).
    """
    name = _name(error, raw)
    names, missing = name.split("."), error["type"] == "missing"
    # The first from pydantic models, the second from dataclasses.
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        sections = did_you_mean(names[-1], Settings.model_fields) if len(names) == 1 and known is None else ""
        return (
            f"{name}: unknown setting{sections or did_you_mean(names[-1], _field_names() if known is None else known)}"
        )
    if error["type"] == "value_error":  # its text starts with the name within the section
        return f"{name}.{error['ctx']['error']}" if name else str(error["ctx"]["error"])
    if missing:
        return f"{name}: this setting is missing"
    if error["type"].startswith("union_tag"):
        tag = f"{name}.{error['ctx']['discriminator'].strip(chr(39))}"
        expected = error["ctx"].get("expected_tags")
        if not expected:
            return f"{tag}: this setting is missing"
        value = str(error["ctx"]["tag"])[:200]
        return (
            f"{tag}: must be one of {expected}, not {value}{did_you_mean(value, re.findall(r'[a-z_0-9]+', expected))}"
        )
    return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}, not {SHORT.repr(error['input'])}"


def _field_names() -> set[str]:
    models = (
        *(Settings, DatasetEntry, Faithfulness, UnstatedChoices, TemperatureThreshold, AbandonedModules),
        *(SmallNetwork, SmallModule, TwoNetworkL2X, L2XDigits, SubsetSelection, MultiLabel, PlantedBias, Statistics),
    )
    return {name for m in models for name in m.model_fields} | {f.name for spec in SPECS for f in fields(spec)}
