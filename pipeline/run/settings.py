"""The model of params.yaml.

Every stage checks the whole file, so that a wrong setting anywhere stops it before it changes a result.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, ValidationError, model_validator

from bla.base.errors import BlaError
from bla.base.specs import (
    L2XF,
    Backbone,
    BoundedLogits,
    ClutteredDigits,
    ConceptVector,
    ImageFolder,
    ImageNet,
    ImageTable,
    L2XReading,
    Mnist,
    NoExplanation,
    OxfordPet,
    Photographs,
    Pointwise,
    Pretraining,
    Schedule,
)
from pipeline.run.sections import PARAMS as PARAMS
from pipeline.run.sections import (
    AbandonedModules,
    DatasetEntry,
    Faithfulness,
    L2XDigits,
    Name,
    Runs,
    SmallModule,
    SmallNetwork,
    Statistics,
    Strict,
    TemperatureThreshold,
    TwoNetworkL2X,
    UnstatedChoices,
    VariantEntry,
    did_you_mean,
    refuse_repetition,
    with_baseline,
    with_embedded,
)

DATASETS, METRICS = Path("data/datasets.json"), Path("reports/metrics.json")
METHODS, NOTEBOOKS = Path("src/bla/explainers"), Path("reports/notebooks")
ALWAYS = ("lime", "attention")
"""Methods that may not be listed under `explainers`: LIME and the variants' modules are always included."""
LARGEST_FILE = 1_000_000
"""Bytes of a params.yaml."""
OF_DATASETS = ("unstated_choices", "temperature_threshold", "abandoned_modules", "two_network_l2x")
"""Experiments with their own list of datasets."""
SPECS = (
    *(Backbone, BoundedLogits, ClutteredDigits, ConceptVector, ImageFolder, ImageNet, ImageTable, L2XF, L2XReading),
    *(Mnist, NoExplanation, OxfordPet, Photographs, Pointwise, Pretraining, Schedule),
)


class Settings(Strict):
    """The whole of params.yaml."""

    datasets: Annotated[list[str], MinLen(min_length=1)]
    variants: Annotated[list[str], MinLen(min_length=1)]
    explainers: list[str]
    learned_explainers: list[str]
    reports: Annotated[list[str], MinLen(min_length=1)]
    runs: Runs
    seed: Annotated[int, Ge(ge=0), Le(le=2**62)]
    gallery_images: Annotated[int, Ge(ge=1), Le(le=50)]
    dataset: Annotated[dict[Name, DatasetEntry], AfterValidator(with_embedded)]
    variant: Annotated[dict[Name, VariantEntry], AfterValidator(with_baseline)]
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
        methods = [path.stem for path in sorted(METHODS.glob("*/[!_]*.py"))]
        listed = [name for name in methods if name not in ALWAYS]
        reports = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
        places: list[tuple[str, Collection[str], str]] = [
            *((key, self.dataset, "`dataset`") for key in ("datasets", *(f"{key}.datasets" for key in OF_DATASETS))),
            ("variants", self.variant, "`variant`"),
            *((key, listed, str(METHODS)) for key in ("explainers", "learned_explainers")),
            ("reports", reports, str(NOTEBOOKS)),
        ]
        for key, known, place in places:
            names: list[str] = attrgetter(key)(self)
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: there is no {name} under {place}{did_you_mean(name, known)}")
            refuse_repetition(key, names)
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
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise BlaError(f"{path}: {size:,} bytes are more than {LARGEST_FILE:,}; it must hold settings alone")
        raw = yaml.safe_load(path.read_text())
    except RecursionError as error:
        raise BlaError(f"{path}: not valid YAML: brackets or lists are nested too deeply") from error
    except FileNotFoundError as error:
        raise BlaError(f"{path}: no such file; run this in the root of the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BlaError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise BlaError(f"{path}: must hold settings by name")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = {
            _name(e, raw): explain_error(e, raw) for e in reversed(error.errors())
        }  # the first error of each setting
        # If a setting may have two types, the error deeper inside is that of the intended type.
        shown = [
            line for name, line in lines.items() if not any(other.startswith(f"{name}.") for other in lines) or not name
        ]
        raise BlaError("\n".join(f"{path}: {line}" for line in reversed(shown))) from error


def _name(error: Any, raw: Any) -> str:
    """The full name in params.yaml of the setting in a pydantic error."""
    names, here = [], raw
    for step in error["loc"]:
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int)):
            here = here[step]
            names.append(str(step))
    return ".".join([*names, str(error["loc"][-1])] if error["type"] == "missing" else names)


def explain_error(error: Any, raw: Any, known: Iterable[str] | None = None) -> str:
    """One line for a pydantic error: the setting's full name in params.yaml, and what is wrong with it.

    `known` are the names from which a misspelt one is guessed (default: all settings).
    """
    name = _name(error, raw)
    names, missing = name.split("."), error["type"] == "missing"
    if error["type"] in (
        "extra_forbidden",
        "unexpected_keyword_argument",
    ):  # the first from pydantic models, the second from dataclasses
        sections = did_you_mean(names[-1], Settings.model_fields) if len(names) == 1 and known is None else ""
        return (
            f"{name}: unknown setting{sections or did_you_mean(names[-1], _field_names() if known is None else known)}"
        )
    if error["type"] == "value_error":  # whose text names the setting relative to its section
        return f"{name}.{error['ctx']['error']}" if name else str(error["ctx"]["error"])
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
        *(SmallNetwork, SmallModule, TwoNetworkL2X, L2XDigits, Statistics),
    )
    return {name for m in models for name in m.model_fields} | {f.name for spec in SPECS for f in fields(spec)}
