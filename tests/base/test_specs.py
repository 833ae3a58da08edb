"""Settings that an entry may leave out: specs.py is in no closure, so a changed default would rerun nothing."""

from dataclasses import MISSING, fields
from pathlib import Path

import yaml

from bla.base import specs

DEFAULTS = {
    "resize": "bilinear",
    "test_share": None,
    "train_images_per_class": None,
    "masks": None,
    "output_stride": None,
    "stochastic_depth": 0,
    "draws": 1,
    "tail": "pooled",
    "images_in_memory": None,
    "head": "trained",
    "threshold_rule": "subtract",
}


def test_defaults_are_these_for_good():
    """To change a default, rename the setting; otherwise results of entries without it would not be recomputed."""
    classes = [value for value in vars(specs).values() if hasattr(value, "__dataclass_fields__")]
    found = {field.name: field.default for cls in classes for field in fields(cls) if field.default is not MISSING}
    assert found == DEFAULTS


def test_the_default_run_writes_out_what_decides_it():
    params = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    for name in params["datasets"]:
        entry = params["dataset"][name]
        assert {field.name for field in fields(specs.Backbone)} - {"tail"} <= set(entry["backbone"])
        assert {field.name for field in fields(specs.Schedule)} - {"images_in_memory"} <= set(entry["training"])
