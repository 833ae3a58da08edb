"""Default settings: specs.py is in no import closure, so a changed default would rerun nothing."""

from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from bla.base import specs

DEFAULTS = {
    "resize": "bilinear",
    "test_share": None,
    "train_images_per_class": None,
    "validation_images": None,
    "differ_in": None,
    "masks": None,
    "output_stride": None,
    "stochastic_depth": 0,
    "draws": 1,
    "tail": "pooled",
    "images_in_memory": None,
    "head": "trained",
    "threshold_rule": "subtract",
}


def test_defaults_never_change():
    """To change a default, rename the setting; otherwise entries that use the default are not recomputed."""
    classes = [value for value in vars(specs).values() if hasattr(value, "__dataclass_fields__")]
    found = {field.name: field.default for cls in classes for field in fields(cls) if field.default is not MISSING}
    assert found == DEFAULTS


def test_the_default_entries_state_every_setting_that_affects_results():
    params = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    for name in params["datasets"]:
        entry = params["dataset"][name]
        assert {field.name for field in fields(specs.Backbone)} - {"tail"} <= set(entry["backbone"])
        assert {field.name for field in fields(specs.Schedule)} - {"images_in_memory"} <= set(entry["training"])
