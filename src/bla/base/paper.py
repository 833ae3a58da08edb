"""The paper's names for columns and datasets, and the settings behind its numbers.

Where the text is silent, settings are those of the authors' released code. A verdict on a claim needs all of them.

Source: Baumhauer et al. 2021, sections 3 and 4.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bla.base.specs import (
    L2XF,
    Alternative,
    Backbone,
    BoundedLogits,
    Explaining,
    NoExplanation,
    Schedule,
    Variant,
    height_and_width,
)

COLUMNS = {"bl": "BL", "bl_plus": "BL+", "l2x_f": "L2X-F", "bla": "BLA", "bla_t": "BLA-T", "bla_ph": "BLA-PH"} | {
    "bla_ph_released": "BLA-PH (released)",
    "bla_ph_reloaded": "BLA-PH (reloaded)",
    "bla_t_renormalise": "BLA-T (renormalise)",
    "bla_t_indicator": "BLA-T (indicator)",
}
"""Column titles, as the paper prints them. BL+ and the variants in brackets are ours: other readings of BLA-PH and BLA-T."""

PUBLISHED_AS = {key: title.partition(" (")[0] for key, title in COLUMNS.items()}
"""The published column that each is compared with; which reading was published is unknown."""

DATASETS = {"cats_vs_dogs": "A", "stanford_dogs": "B", "caltech_birds": "C"}
"""The paper's letters, by kind of images."""

RUNS = 20
LIME = {"patterns": 1000, "presence": 0.5, "output": "probability"}
"""LIME's random occlusion patterns (section 4.3), and LIME's defaults; the paper does not say whether images share them."""
ALPHA = 0.05
IMAGES: dict[str, Any] = {"image_size": 224, "resize": "bilinear", "validation_images": None}
BACKBONE = Backbone(
    architecture="tf_efficientnet_b0",
    weights="timm/tf_efficientnet_b0.aa_in1k",
    normalisation="keras_2021",
    output_stride=None,
    stochastic_depth=0.2,
    draws=5,
)
SCHEDULES = {
    kind: Schedule(
        batch_size=32, epochs=2 if kind == "cats_vs_dogs" else 5, learning_rate=1e-3, dropout=0.2, adam_epsilon=1e-7
    )
    for kind in DATASETS
}
_BLA_T = BoundedLogits(
    explanation="bounded_logits", head="trained", temperature=0.1, threshold_factor=0.98, threshold_rule="subtract"
)
VARIANTS: dict[str, Explaining] = {
    "l2x_f": L2XF(explanation="l2x_f", head="trained", temperature=0.1, k=8),
    "bla": replace(_BLA_T, threshold_factor=0),
    "bla_t": _BLA_T,
    "bla_ph": replace(_BLA_T, head="frozen"),
    "bla_ph_released": replace(_BLA_T, head="trained_as_released"),
    "bla_ph_reloaded": replace(_BLA_T, head="trained_reloaded"),
    "bla_t_renormalise": replace(_BLA_T, threshold_rule="renormalise"),
    "bla_t_indicator": replace(_BLA_T, threshold_rule="indicator"),
}
"""The paper's settings of every column in `COLUMNS` with an explanation."""


def departures(images: Any, backbone: Backbone, schedule: Schedule, runs: int, alpha: float) -> list[str]:
    """How an entry's settings differ from the paper's, in words; empty for datasets that are not the paper's."""
    if images.kind not in DATASETS:
        return []
    # More draws than the paper's are fine; without stochastic depth there is only one.
    adjusted = {"draws": max(backbone.draws, BACKBONE.draws) if backbone.stochastic_depth else backbone.draws}
    paper = IMAGES | asdict(BACKBONE) | adjusted | asdict(SCHEDULES[images.kind])
    del paper["images_in_memory"]  # affects memory only
    height, width = height_and_width(images.image_size)
    square = {"image_size": height} if height == width else {}
    ours = asdict(images) | square | asdict(backbone) | asdict(schedule)
    differences = [f"{name} {ours[name]} (paper: {value})" for name, value in paper.items() if ours[name] != value]
    differences += [] if runs >= RUNS else [f"{runs} runs (paper: {RUNS})"]
    return differences + ([] if alpha == ALPHA else [f"alpha {alpha:g} (paper: {ALPHA})"])


def variant_departures(variants: Mapping[str, Variant]) -> dict[str, list[str]]:
    """How the settings of each of the paper's columns differ from the paper's, in words."""
    result = {}
    for key, paper in VARIANTS.items():
        ours: Variant = variants.get(key, NoExplanation(explanation="none"))
        if key in variants and ours != paper:
            settings = asdict(paper)
            result[key] = [
                f"{COLUMNS[key]}: {n} {v} (paper: {settings.get(n)})"
                for n, v in asdict(ours).items()
                if settings.get(n) != v
            ]
        else:
            result[key] = []
    return result


def lime_departures(settings: Mapping[str, Any]) -> list[str]:
    """How LIME's settings differ from the paper's, in words; more patterns are fine."""
    paper = LIME | {"patterns": max(settings["patterns"], LIME["patterns"])}
    departing = {name: LIME[name] for name, value in paper.items() if settings[name] != value}
    return [f"LIME: {name} {settings[name]} (paper: {value})" for name, value in departing.items()]


def image_departures(explained: int, images: int) -> list[str]:
    """How the number of test images that LIME explains differs from the paper's, in words; the paper explains all."""
    return [] if explained >= images else [f"LIME of {explained} images (paper: of all {images})"]


ABANDONED = {"head": "trained", "temperature": 0.1}
"""Section 3.3's settings of the abandoned modules, as BLA's. Linear and ReLU concept vectors are both possible; the paper
gives no number of runs."""


def abandoned_departures(variants: Mapping[str, Alternative]) -> dict[str, list[str]]:
    """How the settings of each abandoned module differ from the paper's, in words."""
    return {
        key: [f"{n} {getattr(variant, n)} (paper: {v})" for n, v in ABANDONED.items() if getattr(variant, n) != v]
        for key, variant in variants.items()
    }


SMALL_CNN = {"classes": (3, 8), "temperature": 0.1, "threshold_factor": 1, "threshold_rule": "subtract"}
SMALL_CNN |= {"epochs": 3, "learning_rate": 0.001, "adam_epsilon": 1e-7, "alpha": ALPHA}
"""Section 4.1's settings of the small CNN; the paper does not give its batch size."""
TWO_NETWORK_L2X = {"k": 8, "epochs": 3, "learning_rate": 0.001, "adam_epsilon": 1e-7}
"""Section 4.1's settings of L2X with two networks, and Keras' epsilon."""
L2X_TEMPERATURES = (0.1, 10)
"""Possible temperatures of the paper's L2X with two networks: 0.1 as a factor (its code), or as a divisor (Chen et al.)."""

L2X_DIGITS_K = 4
"""Patches that L2X of Chen et al. keeps on MNIST; their other settings are not compared."""


def small_cnn_departures(settings: Mapping[str, Any]) -> list[str]:
    """How the small CNN's settings differ from the paper's, in words; `settings` is flat: module, training, runs, alpha."""
    departing = {name: value for name, value in SMALL_CNN.items() if settings[name] != value}
    departing |= {"runs": RUNS} if settings["runs"] < RUNS else {}
    return [f"{name} {settings[name]} (paper: {value})" for name, value in departing.items()]


def two_network_l2x_departures(images: Any, backbone: Backbone, settings: Mapping[str, Any]) -> list[str]:
    """How images, backbone and settings of two-network L2X differ from the paper's, which had one run."""
    if images.kind not in DATASETS:
        return []
    departing = {name: value for name, value in TWO_NETWORK_L2X.items() if settings[name] != value}
    of_entry = departures(images, backbone, SCHEDULES[images.kind], RUNS, ALPHA)
    return of_entry + [f"{name} {settings[name]:g} (paper: {value:g})" for name, value in departing.items()]


def l2x_reading_departures(temperature: float) -> list[str]:
    """How a reading of two-network L2X differs from every possible meaning of the paper, in words."""
    possible = " or ".join(f"{value:g}" for value in L2X_TEMPERATURES)
    return [] if temperature in L2X_TEMPERATURES else [f"temperature {temperature:g} (paper: {possible})"]
