"""The table, the entry and the settings of docs/own_images.md, on small pictures."""

import re

import numpy as np
import yaml
from page_examples import blocks, settings

from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.images import class_names, mask_names
from pipeline.run.settings import load_settings

PAGE = "own_images.md"


def test_the_table_of_the_page_is_prepared_with_its_entry(here, edit_params, save_png, end_of):
    edit_params(here, {f"dataset.{name}": value for name, value in settings(PAGE).items()})
    (table,) = (text for text in blocks(PAGE, "") if text.startswith("file,split,labels"))
    table += "img/3.jpg,train,dog\n"  # each class needs a training image; the page shows the first lines
    folder = here / "data/raw/photos"
    rng = np.random.default_rng(0)
    files = [line.partition(",")[0] for line in table.splitlines()[1:]]
    for name in files:
        save_png(folder / name, rng.integers(0, 256, (50, 80, 3), dtype=np.uint8))
        mask = np.zeros((50, 80), np.uint8)
        mask[:25] = 255
        save_png((folder / "masks/dog" / name).with_suffix(".png"), mask)
    (folder / "images.csv").write_text(table)
    assert end_of("prepare", "photos") is None
    assert class_names("photos") == ["cat", "dog", "sofa"]
    images = here / "data/images/photos"
    assert sorted(load_array(images / "train_labels.npy").tolist()) == [[False, True, False], [True, False, True]]
    assert load_array(images / "test_labels.npy").tolist() == [[False, True, False]]
    assert load_array(images / "test_images.npy").shape == (1, 224, 224, 3)
    assert mask_names("photos") == ["dog"]
    assert load_array(images / "test_masks.npy").mean() == 0.5


def test_the_settings_of_the_command_are_possible(here, edit_params):
    (command,) = (text for text in blocks(PAGE, "sh") if " -S " in text)
    given = dict(words.split("=", 1) for words in re.findall(r"-S '?([^' \n]+)", command))
    assert given["datasets"] == "[photos]"
    edit_params(here, {name: yaml.safe_load(value) for name, value in given.items()})
    checked = load_settings(here / "params.yaml")
    assert checked.datasets == ["photos"]
    assert checked.dataset["photos"].backbone.weights == given["dataset.photos.backbone.weights"]
