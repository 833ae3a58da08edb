"""A card for each explanation method, read from its class, and the tables of all methods and metrics."""

from functools import cache
from inspect import cleandoc, getmodule
from pathlib import Path
from typing import Any

from settings_page import about, escaped, fact_table, setting_names, setting_table

from bla.explainers.interface import StructuredExplainer
from bla.explainers.registry import explainer_class, explainer_files
from bla.metrics import METRICS

FAMILIES = {
    "controls": "control, which ignores the classifier",
    "learned": "learned: fitted to the classifier first",
    "optimised": "mask optimisation",
    "posthoc": "post hoc",
    "structured": "sets of cells",
}
TRAITS = (
    ("class_specific", "The map belongs to one class.", "The map is the same for every class."),
    ("ignores_image", "The map is the same for every image, but for random numbers.", ""),
    ("seeded", "It draws random numbers, from a seed per image.", "It draws no random numbers."),
    ("makes_masks", "The map is a mask in [0, 1] of the image's size.", ""),
    ("linear_head", "The classifier must have a linear head on average-pooled features.", ""),
    ("slow", "Slow: it explains only `faithfulness.slow_images` images.", ""),
    (
        "few",
        "Very slow: it explains only as many images as its setting `images` says, and stands in tables without a rank.",
        "",
    ),
)
"""Attributes of a class, with a sentence for true and one for false."""


@cache
def method_pages() -> dict[str, str]:
    """The pages in `methods/` by name, `index.md` first."""
    cards = {f"methods/{name}.md": method_card(name, path) for name, path in explainer_files().items()}
    return {"methods/index.md": method_table(), **cards}


def method_table() -> str:
    """All methods with the first lines of their cards."""
    rows = [
        "# All methods",
        "",
        "One card each, generated from the method's file. [How to add yours](../own_methods.md).",
        "",
    ]
    rows += ["| method | family | what its map shows | source | cost |", "|---|---|---|---|---|"]
    for name, path in explainer_files().items():
        kind = explainer_class(name)
        family = FAMILIES.get(path.parent.name, path.parent.name).partition(":")[0].partition(",")[0]
        rows.append(
            f"| [{kind.title}]({name}.md) | {family} | {kind.card.sentence} | {kind.card.source} | {kind.card.cost} |"
        )
    return "\n".join(rows) + "\n"


def method_card(name: str, path: Path) -> str:
    """What a reader should know of one method, its theory, its settings and a call."""
    kind, card = explainer_class(name), explainer_class(name).card
    source = f"src/bla/explainers/{path.parent.name}/{path.name}"
    facts = {
        "name": f"`{name}`",
        "family": FAMILIES.get(path.parent.name, path.parent.name),
        "source": card.source,
        "needs": card.needs,
        "cost of a map": card.cost,
        "evidence that it is right": card.proof,
        "code": f"[`{source}`](../../{source})",
    }
    traits = [yes if getattr(kind, trait) else no for trait, yes, no in TRAITS if not (trait == "slow" and kind.few)]
    traits.append(
        "It also returns sets of cells, each an explanation." if issubclass(kind, StructuredExplainer) else ""
    )
    parts = [
        f"# {kind.title}",
        card.sentence,
        fact_table(facts),
        "## How it works",
        escaped(cleandoc(getmodule(kind).__doc__ or "")),
        "\n".join(f"- {trait}" for trait in traits if trait),
        "## Settings",
        method_settings(name, kind),
    ]
    if name != "attention":
        parts += ["## Use it", use_of(name, kind)]
    return "\n\n".join(parts) + "\n"


def method_settings(name: str, kind: Any) -> str:
    """The table of a method's settings."""
    if not setting_names(kind.Settings):
        return "The variant's: see [all settings](../settings.md)." if name == "attention" else "None."
    rows = setting_table(f"explainer.{name}", kind.Settings)
    return f"The section `explainer.{name}` of `params.yaml`.\n\n{about(kind.Settings)}\n\n{rows}"


def use_of(name: str, kind: Any) -> str:
    """How to get maps of this method, in the pipeline and in Python."""
    section = "learned_explainers" if kind.learned else "explainers"
    if name == "lime":
        in_pipeline = "In the pipeline LIME always runs."
    else:
        in_pipeline = f"In the pipeline: add `{name}` to `{section}` in `params.yaml`."
    if kind.learned:
        return (
            f"{in_pipeline} For [your own classifier](../own_classifier.md), `bla methods` says whether it can be used."
        )
    call = f'record = bla.explain(classifier, "photo.jpg", ["{name}"])'
    return f"{in_pipeline} For [your own classifier](../own_classifier.md):\n\n```python\n{call}\n```"


def metric_page() -> str:
    """All metrics with direction, unit, formula, meaning and source."""
    parts = ["# All metrics", "A metric is one number for one map of one image. [How to add yours](own_metric.md)."]
    for metric in METRICS:
        facts = {"name": f"`{metric.name}`", "better": metric.better, "unit": metric.unit}
        facts |= {"formula": f"`{metric.formula}`", "source": metric.source}
        parts.append(f"## {metric.title}\n\n{metric.meaning}\n\n{fact_table(facts)}")
    return "\n\n".join(parts) + "\n"
