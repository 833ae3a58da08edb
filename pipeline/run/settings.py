"""The model of params.yaml, which checks the whole file.

Every stage loads the whole file, so that a wrong setting anywhere stops it before it has touched a result.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

import yaml
from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from bla.base.errors import BlaError
from bla.base.specs import (
    L2XF,
    Alternative,
    Backbone,
    BoundedLogits,
    ClutteredDigits,
    ConceptVector,
    Count,
    ImageFolder,
    ImageNet,
    Images,
    ImageTable,
    L2XReading,
    LearningRate,
    Mnist,
    NoExplanation,
    OxfordPet,
    Photographs,
    Pointwise,
    Positive,
    Pretraining,
    Schedule,
    ThresholdRule,
)

PARAMS, DATASETS, METRICS = Path("params.yaml"), Path("data/datasets.json"), Path("reports/metrics.json")
ALWAYS = ("lime", "attention")
"""Methods that may not be listed under `explainers`: LIME and the variants' modules always take part."""
SPECS = (
    *(Backbone, BoundedLogits, ClutteredDigits, ConceptVector, ImageFolder, ImageNet, ImageTable, L2XF, L2XReading),
    *(Mnist, NoExplanation, OxfordPet, Photographs, Pointwise, Pretraining, Schedule),
)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]
"""Names become parts of file and stage names: lower-case letters, digits and underscores."""


Digit = Annotated[int, Ge(ge=0), Le(le=9)]

Entry = TypeVar("Entry")


class Entries(dict[str, Entry]):
    """The entries of `dataset` or `variant` by name; to ask for one that is not there is the user's mistake."""

    def __missing__(self, name: str) -> NoReturn:
        raise BlaError(f"{PARAMS}: there is no entry {name}{did_you_mean(name, self)}; there are {', '.join(self)}")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetEntry(Strict):
    """Images, and how a classifier is built on them: one row of Table 1."""

    images: Annotated[Images, Field(discriminator="kind")]
    backbone: Backbone
    training: Schedule


class Statistics(Strict):
    alpha: Annotated[float, Ge(ge=0.0001), Le(le=0.5)]
    resamples: Annotated[int, Ge(ge=99)]


class Faithfulness(Strict):
    """On how many images, and how, maps are made and measured."""

    images: Annotated[int, Ge(ge=2)]
    slow_images: Annotated[int, Ge(ge=2)]
    check_images: Annotated[int, Ge(ge=2)]
    run: Annotated[int, Ge(ge=0)]
    constant_maps: Literal["zero", "leave_out"]
    cells_at_once: Annotated[int, Ge(ge=1)]
    orders: Annotated[int, Ge(ge=1)]
    noise: Annotated[float, Ge(ge=0), Le(le=1)]
    retraining_images: Annotated[int, Ge(ge=32)]


class UnstatedChoices(Strict):
    """Which datasets the ablation of the paper's silent choices runs on, and how often."""

    datasets: list[str]
    runs: Annotated[int, Ge(ge=2)]
    draws: Annotated[int, Ge(ge=2)]


class TemperatureThreshold(Strict):
    """On which datasets, and at which temperatures and thresholds, BLA-T is trained beside Table 1, and how often."""

    datasets: list[str]
    temperatures: Annotated[list[Positive], MinLen(min_length=1)]
    threshold_factors: Annotated[list[Annotated[float, Ge(ge=0), Le(le=1000)]], MinLen(min_length=1)]
    threshold_rules: Annotated[list[ThresholdRule], MinLen(min_length=1)]
    runs: Annotated[int, Ge(ge=2)]


class AbandonedModules(Strict):
    """On which datasets the modules that the paper gave up are trained, and how often."""

    datasets: list[str]
    runs: Annotated[int, Ge(ge=2)]
    variants: Annotated[dict[Name, Annotated[Alternative, Field(discriminator="explanation")]], MinLen(min_length=1)]


class SmallNetwork(Strict):
    """Section 4.1: what the small CNN is trained on and how, and BLA-T's settings in it. `images` are of `digits` alone."""

    data: Literal["digits", "mnist"]
    classes: tuple[Digit, Digit]
    images: Annotated[int, Ge(ge=20)]
    runs: Annotated[int, Ge(ge=2)]
    temperature: Positive
    threshold_factor: Annotated[float, Ge(ge=0), Le(le=1000)]
    threshold_rule: ThresholdRule
    batch_size: Count
    epochs: Count
    learning_rate: LearningRate
    adam_epsilon: Positive


class L2XDigits(Strict):
    """L2X on section 4.1's digits: how many of 49 patches, for how long, how often; the rest is as in `small_cnn`."""

    k: Annotated[int, Ge(ge=1), Le(le=48)]
    epochs: Count
    runs: Annotated[int, Ge(ge=2)]


class TwoNetworkL2X(Strict):
    """Section 4.1: L2X with two networks. `readings` are what the paper may mean, the others are compared with the first."""

    datasets: list[str]
    readings: Annotated[dict[Name, L2XReading], MinLen(min_length=1)]
    k: Count
    epochs: Count
    batch_size: Count
    learning_rate: LearningRate
    adam_epsilon: Positive
    runs: Annotated[int, Ge(ge=2)]
    train_images: Annotated[int, Ge(ge=2)]
    test_images: Annotated[int, Ge(ge=2)]
    digits: L2XDigits


class Settings(Strict):
    """The whole of params.yaml."""

    datasets: Annotated[list[str], MinLen(min_length=1)]
    variants: Annotated[list[str], MinLen(min_length=1)]
    explainers: list[str]
    learned_explainers: list[str]
    reports: Annotated[list[str], MinLen(min_length=1)]
    runs: Annotated[int, Ge(ge=2)]
    seed: Annotated[int, Ge(ge=0)]
    gallery_images: Annotated[int, Ge(ge=1), Le(le=50)]
    dataset: Annotated[dict[Name, DatasetEntry], AfterValidator(Entries)]
    variant: Annotated[
        dict[Name, Annotated[NoExplanation | BoundedLogits | L2XF, Field(discriminator="explanation")]],
        AfterValidator(Entries),
    ]
    explainer: dict[Name, dict[str, Any]]
    """Checked by the methods themselves (`pipeline.run.methods`)."""
    faithfulness: Faithfulness
    unstated_choices: UnstatedChoices
    temperature_threshold: TemperatureThreshold
    abandoned_modules: AbandonedModules
    small_cnn: SmallNetwork
    two_network_l2x: TwoNetworkL2X
    pretraining: Pretraining
    statistics: Statistics

    @model_validator(mode="after")
    def names_exist(self) -> Self:
        reports = [path.stem for path in sorted(Path("reports/notebooks").glob("*.ipynb"))]
        methods = [
            path.stem for path in sorted(Path("src/bla/explainers").glob("*/[!_]*.py")) if path.stem not in ALWAYS
        ]
        places = {"datasets": "`dataset`", "variants": "`variant`", "reports": "reports/notebooks"}
        places |= {
            "unstated_choices.datasets": "`dataset`",
            "temperature_threshold.datasets": "`dataset`",
            "abandoned_modules.datasets": "`dataset`",
            "two_network_l2x.datasets": "`dataset`",
            "explainers": "src/bla/explainers",
            "learned_explainers": "src/bla/explainers",
        }
        for key, names, known in (
            ("datasets", self.datasets, self.dataset),
            ("unstated_choices.datasets", self.unstated_choices.datasets, self.dataset),
            ("temperature_threshold.datasets", self.temperature_threshold.datasets, self.dataset),
            ("abandoned_modules.datasets", self.abandoned_modules.datasets, self.dataset),
            ("two_network_l2x.datasets", self.two_network_l2x.datasets, self.dataset),
            ("variants", self.variants, self.variant),
            ("explainers", self.explainers, methods),
            ("learned_explainers", self.learned_explainers, methods),
            ("reports", self.reports, reports),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: there is no {name} under {places[key]}{did_you_mean(name, known)}")
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: a name is listed twice")
        if "bl" in self.variant:
            raise ValueError("variant.bl: the name is taken: BL is the baseline and has no settings of its own")
        if not isinstance(self.variant.get("bl_plus"), NoExplanation):
            raise ValueError("variant.bl_plus: must exist, with explanation none; it is the baseline that trains on")
        for name in self.variants:
            if isinstance(self.variant[name], NoExplanation):
                raise ValueError(f"variants: {name} has no explanation; the baselines BL and BL+ always run")
        if "bla" in self.abandoned_modules.variants:
            raise ValueError("abandoned_modules.variants.bla: the name is taken: BLA always runs beside them")
        for name, variant in self.variant.items():
            if (
                isinstance(variant, BoundedLogits)
                and variant.threshold_rule == "indicator"
                and variant.head == "frozen"
            ):
                raise ValueError(f"variant.{name}: the indicator has no gradient, so with a frozen head nothing trains")
        for name in self.variant:
            if name in (*methods, *ALWAYS, "mask"):
                raise ValueError(f"variant.{name}: the name is taken: it is an explanation method (`explainers`)")
        for field in ("temperatures", "threshold_factors", "threshold_rules"):
            if len(set(values := getattr(self.temperature_threshold, field))) < len(values):
                raise ValueError(f"temperature_threshold.{field}: a value is listed twice")
        if len(set(self.small_cnn.classes)) < 2:
            raise ValueError("small_cnn.classes: a digit is listed twice")
        counts = self.faithfulness
        for more, fewer in (("images", "slow_images"), ("slow_images", "check_images")):
            if getattr(counts, fewer) > getattr(counts, more):
                raise ValueError(
                    f"faithfulness.{fewer}: {getattr(counts, fewer)} is more than {more}, {getattr(counts, more)}"
                )
        if counts.run >= self.runs:
            raise ValueError(
                f"faithfulness.run: there is no run {counts.run}; the last of {self.runs} is {self.runs - 1}"
            )
        for name, entry in self.dataset.items():
            images = entry.images
            if isinstance(images, ClutteredDigits):
                if not images.fragment_size <= images.digit_size <= images.image_size:
                    raise ValueError(f"dataset.{name}.images: needs fragment_size <= digit_size <= image_size")
                if len(images.classes) > min(images.train_images, images.test_images):
                    raise ValueError(f"dataset.{name}.images: fewer images than classes")
            if isinstance(images, ClutteredDigits | Mnist) and len(set(images.classes)) < len(images.classes):
                raise ValueError(f"dataset.{name}.images.classes: a digit is listed twice")
            noisy, draws = entry.backbone.stochastic_depth > 0, entry.backbone.draws
            if (noisy and draws < 5) or (not noisy and draws > 1):
                raise ValueError(
                    f"dataset.{name}.backbone.draws: needs {'at least 5' if noisy else '1'}, not {draws}, "
                    f"with stochastic_depth {entry.backbone.stochastic_depth:g}; or set that to {'0' if noisy else '0.2'}"
                )
        embedded = self.dataset.get("cluttered_digits")
        if embedded is None or not isinstance(embedded.images, ClutteredDigits):
            raise ValueError(
                "dataset.cluttered_digits: must stay, of kind cluttered_digits: it trains the embedded backbone"
            )
        return self


def load_settings(path: Path = PARAMS) -> Settings:
    """Read and check params.yaml; BlaError lists every wrong setting, one line each, by its full name."""
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such file; run this in the root of the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BlaError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise BlaError(f"{path}: must hold settings by name")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = {_name(e, raw): explain_error(e, raw) for e in reversed(error.errors())}  # the first of each setting
        # Where a setting may be of two kinds, the error that goes deeper is that of the kind that was meant.
        shown = [
            line for name, line in lines.items() if not any(other.startswith(f"{name}.") for other in lines) or not name
        ]
        raise BlaError("\n".join(f"{path}: {line}" for line in reversed(shown))) from error


def _name(error: Any, raw: Any) -> str:
    """The full name in params.yaml of the setting that a pydantic error is about."""
    names, here = [], raw
    for step in error["loc"]:
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int)):
            here = here[step]
            names.append(str(step))
    return ".".join([*names, str(error["loc"][-1])] if error["type"] == "missing" else names)


def explain_error(error: Any, raw: Any, known: Iterable[str] = ()) -> str:
    """One line for a pydantic error: the setting's full name in params.yaml, and what is wrong with it."""
    name = _name(error, raw)
    names, missing = name.split("."), error["type"] == "missing"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
        here = Settings.model_fields if len(names) == 1 else ()
        return f"{name}: unknown setting{did_you_mean(names[-1], known or here) or did_you_mean(names[-1], _field_names())}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if missing:
        return f"{name}: this setting is missing"
    if error["type"].startswith("union_tag"):
        tag = f"{name}.{error['ctx']['discriminator'].strip(chr(39))}"
        expected = error["ctx"].get("expected_tags")
        if not expected:
            return f"{tag}: this setting is missing"
        given = str(error["ctx"]["tag"])
        return (
            f"{tag}: must be one of {expected}, not {given}{did_you_mean(given, re.findall(r'[a-z_0-9]+', expected))}"
        )
    return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"


def _field_names() -> set[str]:
    models = (
        *(Settings, DatasetEntry, Faithfulness, UnstatedChoices, TemperatureThreshold, AbandonedModules),
        *(SmallNetwork, TwoNetworkL2X, L2XDigits, Statistics),
    )
    return {name for m in models for name in m.model_fields} | {f.name for spec in SPECS for f in fields(spec)}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What a wrong name may have meant, in brackets; empty if nothing is near."""
    near = difflib.get_close_matches(str(name), [other for other in known if other != name], 1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
