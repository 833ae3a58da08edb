"""params.yaml: the shipped file is valid; every mistake gives one line that starts with the setting's full name."""

import copy
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml

from bla.base.errors import BlaError
from bla.base.specs import (
    BoundedLogits,
    Coco,
    ImageFolder,
    ImageNet,
    Mnist,
    NoExplanation,
    OxfordPet,
    PaintedBirds,
    PaintedFlock,
    PascalVoc,
    Photographs,
)
from bla.explainers.learned.attention import Attention
from bla.explainers.registry import explainer_class
from pipeline.run.settings import load_settings
from pipeline.stages.settings import check_methods

TEXT = Path("params.yaml").read_text()
SHIPPED = yaml.safe_load(TEXT)
BLA, PHOTOS = SHIPPED["variant"]["bla"], SHIPPED["dataset"]["photos"]
GONE = object()


def edited(*edits):
    """The shipped settings with (dotted key, value) edits; the value GONE deletes the key."""
    settings = copy.deepcopy(SHIPPED)
    for key, value in edits:
        *parents, last = key.split(".")
        section = settings
        for name in parents:
            section = section[name]
        if value is GONE:
            del section[last]
        else:
            section[last] = copy.deepcopy(value)
    return settings


def written(settings, **style):
    """As YAML; LibYAML writes ten times as fast as Python."""
    return yaml.dump(settings, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, **style)


@pytest.fixture
def accepted(tmp_path):
    """A function that loads valid settings."""

    def load(settings, **style):
        text = settings if isinstance(settings, str) else written(settings, **style)
        (tmp_path / "params.yaml").write_text(text)
        return load_settings(tmp_path / "params.yaml")

    return load


@pytest.fixture
def complaints(tmp_path, monkeypatch):
    """A function from settings to the lines of the error message; reports are looked up in the repository."""

    def check(settings):
        text = settings if isinstance(settings, str) else written(settings)
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(BlaError) as error:
            check_methods(load_settings(tmp_path / "params.yaml"))
        return str(error.value).replace(f"{tmp_path}/", "").splitlines()

    return check


def test_the_shipped_file_is_valid():
    settings = load_settings()
    kinds = {name: type(entry.images) for name, entry in settings.dataset.items()}
    paper = ("cats_vs_dogs", "stanford_dogs", "caltech_birds")
    assert kinds == {"painted_birds": PaintedBirds, "painted_pair": PaintedBirds, "photos": ImageFolder} | {
        name: Photographs for kind in paper for name in (kind, f"{kind}_clean")
    } | {"oxford_pet": OxfordPet, "mnist_3_vs_8": Mnist} | dict.fromkeys(("imagenet", "imagenet_vgg16", "imagenet_resnet50"), ImageNet) | {"painted_flock": PaintedFlock, "voc_2007": PascalVoc, "coco_2014": Coco}  # fmt: skip
    assert all(
        settings.dataset[name].images.kind == name.removesuffix("_clean")
        for kind in paper
        for name in (kind, f"{kind}_clean")
    )
    assert isinstance(settings.variant["bla_t"], BoundedLogits)
    assert isinstance(settings.variant["bl_plus"], NoExplanation)


@pytest.mark.parametrize("flow", [False, True, None], ids=["block style", "flow style", "mixed"])
def test_the_style_of_yaml_does_not_matter(flow, accepted):
    assert accepted(SHIPPED, default_flow_style=flow) == accepted(TEXT) == load_settings()


@pytest.mark.parametrize("name", SHIPPED["dataset"])
def test_every_entry_of_dataset_can_run(name, accepted):
    assert accepted(edited(("datasets", [name]), ("unstated_choices.datasets", [name]))).datasets == [name]
    assert accepted(edited(("datasets", [name]), ("unstated_choices.datasets", []))).unstated_choices.datasets == []
    assert accepted(edited(("datasets", [name]))).datasets == [name]


def test_settings_with_a_default_may_be_left_out(accepted):
    gone = ("images.resize", "images.test_share", "images.train_images_per_class", "images.masks")
    gone += ("backbone.output_stride", "backbone.stochastic_depth", "backbone.draws")
    settings = accepted(edited(*((f"dataset.photos.{key}", GONE) for key in gone)))
    assert settings.dataset["photos"] == load_settings().dataset["photos"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("variant.bla_ph.head", head) for head in ("trained", "frozen", "trained_as_released", "trained_reloaded")),
        *(("variant.bla_t.threshold_rule", rule) for rule in ("subtract", "renormalise", "indicator")),
        *(("dataset.photos.images.test_share", share) for share in (None, 0.001, 0.2, 0.999)),
        *(("dataset.photos.images.masks", masks) for masks in (None, "binary", "trimap")),
        *(("dataset.photos.images.train_images_per_class", count) for count in (None, 1, 500)),
        *(("dataset.photos.images.resize", resize) for resize in ("bilinear", "bilinear_antialias")),
        *(("dataset.photos.backbone.normalisation", name) for name in ("imagenet", "keras_2021", "half", "half_keras_2021", "model")),
        *(("dataset.oxford_pet.images.classes", classes) for classes in ("species", "breeds")),
        *(("dataset.cats_vs_dogs.backbone.draws", draws) for draws in (5, 20)),
        *(("dataset.cats_vs_dogs.backbone.stochastic_depth", depth) for depth in (0.001, 0.2, 0.999)),
        ("dataset.mnist_3_vs_8.images.image_size", 28),
        ("unstated_choices.runs", 2),
        ("unstated_choices.draws", 2),
    ],
)  # fmt: skip
def test_a_value_that_is_accepted(key, value, accepted):
    loaded = accepted(edited((key, value)))
    for name in key.split("."):
        loaded = loaded[name] if isinstance(loaded, dict) else getattr(loaded, name)
    assert loaded == value


@pytest.mark.parametrize("value", [1.0e-3, "1e-3"], ids=["number", "the string that YAML makes of 1e-3"])
def test_a_learning_rate_may_be_written_as_1e_3(value, tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(edited(("two_network_l2x.training.learning_rate", value))))
    assert load_settings(tmp_path / "params.yaml").two_network_l2x.training.learning_rate == 0.001


UNKNOWN = {
    "run": "runs",
    "statistics.alfa": "alpha",
    "small_cnn.training.epoch": "epochs",
    "variant.bla_t.temprature": "temperature",
    "variant.bl_plus.heads": "head",
    "variant.l2x_f.threshold_factr": "threshold_factor",
    "dataset.photos.imagess": "images",
    "dataset.photos.images.resise": "resize",
    "dataset.photos.backbone.architekture": "architecture",
    "dataset.photos.training.drop_out": "dropout",
    "dataset.painted_birds.images.loose_part": "loose_parts",
    "unstated_choices.run": "runs",
    "unstated_choices.dataset_names": "datasets",
    "temperature_threshold.temperature": "temperatures",
    "two_network_l2x.reading": "readings",
    "two_network_l2x.readings.divided.back_ground": "background",
    "two_network_l2x.digits.run": "runs",
    "subset_selection.test_sample": "test_samples",
    "planted_bias.cue_siz": "cue_size",
    "subset_selection.module.threshold": "threshold_rule",
    "dataset.photos.images.testshare": "test_share",
    "dataset.photos.images.mask": "masks",
    "dataset.cats_vs_dogs.images.imagesize": "image_size",
    "dataset.oxford_pet.images.class": "classes",
    "dataset.mnist_3_vs_8.images.resise": "resize",
    "dataset.imagenet.images.paths": "path",
    "dataset.imagenet.backbone.draw": "draws",
    "dataset.caltech_birds.backbone.stochastic_dept": "stochastic_depth",
    "variant.bla_ph_released.treshold_rule": "threshold_rule",
}
MISSING = ["runs", "variant", "statistics.alpha", "faithfulness.left_out", "variant.bla_t.head", "variant.l2x_f.k"]
MISSING += ["variant.bla.explanation", "dataset.photos.training", "dataset.photos.backbone.weights"]
MISSING += [
    "two_network_l2x",
    "two_network_l2x.k",
    "two_network_l2x.digits.k",
    "subset_selection",
    "subset_selection.l2x_temperature",
    "planted_bias",
    "planted_bias.methods",
    "two_network_l2x.readings.multiplied.temperature",
]
MISSING += [
    "unstated_choices",
    "unstated_choices.datasets",
    "unstated_choices.runs",
    "unstated_choices.draws",
    "dataset.oxford_pet.images.classes",
]
MISSING += [
    "dataset.cats_vs_dogs.images.image_size",
    "dataset.imagenet.images.path",
    "dataset.mnist_3_vs_8.images.classes",
]
MISSING += ["dataset.photos.images.kind", "dataset.photos.images.path", "dataset.painted_birds.images.bird_size"]
NAME = "^[a-z0-9][a-z0-9_]*$"
BIRDS = "dataset.painted_birds.images"
LIMITS = [
    ("variant.bla.temperature", 0, "greater than 0"),
    ("variant.bla.temperature", float("nan"), "less than or equal to 1000"),
    ("variant.bla.temperature", float("inf"), "less than or equal to 1000"),
    ("variant.bla.threshold_factor", -0.1, "greater than or equal to 0"),
    ("variant.l2x_f.k", 0, "greater than or equal to 1"),
    ("runs", 1, "greater than or equal to 2"),
    ("runs", 10**30, "less than or equal to 1000"),
    ("runs", 1001, "less than or equal to 1000"),
    ("statistics.resamples", 10**12, "less than or equal to 100000"),
    ("faithfulness.images", 10**9, "less than or equal to 10000000"),
    ("faithfulness.orders", 10**6, "less than or equal to 1000"),
    ("dataset.photos.training.epochs", 10**5, "less than or equal to 10000"),
    ("dataset.photos.training.batch_size", 10**8, "less than or equal to 10000000"),
    ("dataset.photos.images.image_size", 10**5, "less than or equal to 4096"),
    ("small_cnn.training.epochs", 10**7, "less than or equal to 10000"),
    ("seed", -1, "greater than or equal to 0"),
    ("statistics.alpha", 0, "greater than or equal to 0.0001"),
    ("dataset.photos.training.dropout", 1, "less than 1"),
    ("dataset.photos.images.image_size", 31, "greater than or equal to 32"),
    ("dataset.photos.images.resize", "cubic", "'bilinear' or 'bilinear_antialias'"),
    ("dataset.photos.images", None, "dictionary"),
    ("dataset.photos.images.path", "", "at least 1 character"),
    ("variant.bla.head", "trainde", "'trained', 'frozen', 'trained_as_released' or 'trained_reloaded'"),
    ("variant.bl_plus.head", "frozen", "'trained'"),
    ("runs", 2.5, "valid integer"),
    ("runs", "many", "valid integer"),
    ("seed", None, "valid integer"),
    ("variant.bla.temperature", [1], "valid number"),
    ("datasets", "photos", "valid list"),
    ("dataset.photos", None, "dictionary"),
    ("small_cnn", 3, "dictionary"),
    ("variant.bla_ph.threshold_factor", float("inf"), "less than or equal to 1000"),
    ("dataset.photos.training.learning_rate", 1000000000.0, "less than or equal to 10"),
    ("dataset.photos.images.test_share", 0, "greater than 0"),
    ("dataset.photos.images.test_share", 1, "less than 1"),
    ("dataset.photos.images.masks", "png", "'binary', 'trimap', 'voc' or 'alpha'"),
    ("dataset.photos.images.train_images_per_class", 0, "greater than or equal to 1"),
    ("dataset.oxford_pet.images.classes", "cats", "'species' or 'breeds'"),
    ("dataset.mnist_3_vs_8.images.image_size", 27, "greater than or equal to 28"),
    ("dataset.cats_vs_dogs.images.image_size", 31, "greater than or equal to 32"),
    (
        "dataset.photos.backbone.normalisation",
        "keras",
        "'imagenet', 'keras_2021', 'half', 'half_keras_2021' or 'model'",
    ),
    ("dataset.photos.backbone.stochastic_depth", 1, "less than 1"),
    ("dataset.photos.backbone.stochastic_depth", -0.1, "greater than or equal to 0"),
    ("dataset.photos.backbone.draws", 0, "greater than or equal to 1"),
    ("explainer.lime.patterns", 99, "greater than or equal to 100"),
    ("explainer.lime.presence", 1, "less than 1"),
    ("explainer.lime.output", "odds", "'probability' or 'logit'"),
    ("explainer.lime.patterns_of", "class", "'dataset' or 'image'"),
    ("explainer.rise.grid", 1, "greater than or equal to 2"),
    ("explainer.i_gos.first_step", 1e30, "less than 1000000"),
    ("explainer.i_gos_pp.first_step", 0, "greater than 0"),
    ("faithfulness.images", 1, "greater than or equal to 2"),
    ("faithfulness.constant_maps", "one", "'zero' or 'leave_out'"),
    ("faithfulness.orders", 0, "greater than or equal to 1"),
    ("unstated_choices.datasets", None, "valid list"),
    ("unstated_choices.runs", 1, "greater than or equal to 2"),
    ("unstated_choices.draws", 1, "greater than or equal to 2"),
    ("temperature_threshold.threshold_rules", [], "at least 1 item"),
    ("abandoned_modules.runs", 1, "greater than or equal to 2"),
    ("abandoned_modules.variants", {}, "at least 1 item"),
    ("abandoned_modules.variants.pointwise.temperature", 0, "greater than 0"),
    ("small_cnn.data", "fashion", "'digits' or 'mnist'"),
    ("small_cnn.images", 19, "greater than or equal to 20"),
    ("two_network_l2x.readings", {}, "at least 1 item"),
    ("two_network_l2x.readings.divided.temperature", 0, "greater than 0"),
    ("two_network_l2x.readings.divided.background", "grey", "'black' or 'mean'"),
    ("two_network_l2x.readings.divided.straight_through", 2, "valid boolean"),
    ("two_network_l2x.k", 0, "greater than or equal to 1"),
    ("two_network_l2x.runs", 1, "greater than or equal to 2"),
    ("two_network_l2x.digits.k", 49, "less than or equal to 48"),
    ("two_network_l2x.digits.epochs", 0, "greater than or equal to 1"),
    ("temperature_threshold.runs", 1, "greater than or equal to 2"),
    ("subset_selection.runs", 1, "greater than or equal to 2"),
    ("planted_bias.cue_size", 0, "greater than or equal to 0.02"),
    ("planted_bias.cue_size", 0.6, "less than or equal to 0.5"),
    ("subset_selection.l2x_temperature", 0, "greater than 0"),
    ("subset_selection.test_samples", 10**5, "less than or equal to 10000"),
    ("subset_selection.train_samples", 10**7, "less than or equal to 1000000"),
]
"""A value of the wrong type or size, and the requirement in the message, which ends with the value."""
REFUSED = [
    ("datasets", ["painted_bird"], "did you mean painted_birds?"),
    ("variants", ["bla_tt"], "did you mean bla_t?"),
    ("variants", ["qqqq"], "there is no qqqq under `variant`"),
    ("reports", ["table"], "did you mean table1?"),
    ("datasets", ["photos", "photos"], "twice"),
    ("variants", ["bla", "l2x_f", "bla"], "twice"),
    ("reports", ["table1", "table1"], "twice"),
    ("variants", ["bla", "bl_plus"], "bl_plus has no explanation"),
    ("dataset.mnist_3_vs_8.images.classes", [3, 3], "twice"),
    ("dataset.photos.backbone.draws", 5, "needs 1, not 5"),
    ("dataset.cats_vs_dogs.backbone.draws", 4, "needs at least 5, not 4, with stochastic_depth 0.2"),
    ("dataset.cats_vs_dogs.backbone.draws", 1, "needs at least 5, not 1, with stochastic_depth 0.2; or set that to 0"),
    (
        "dataset.cats_vs_dogs.backbone.draws",
        GONE,
        "needs at least 5, not 1, with stochastic_depth 0.2; or set that to 0",
    ),
    ("explainers", ["cam", "grad_kam"], "did you mean grad_cam?"),
    ("explainers", ["lime"], "there is no lime under src/bla/explainers"),
    ("explainers", ["cam", "cam"], "twice"),
    ("faithfulness.slow_images", 25, "25 is more than images, 24"),
    ("faithfulness.check_images", 7, "7 is more than slow_images, 6"),
    ("faithfulness.run", 20, "no run 20; the last of 20 is 19"),
    ("variant.cam", BLA, "`explainers`"),
    ("variant.mask", BLA, "`explainers`"),
    ("faithfulness.left_out", ["painted_par"], "did you mean painted_pair?"),
    ("planted_bias.datasets", ["painted_par"], "did you mean painted_pair?"),
    ("planted_bias.methods", ["cam", "bla_tt"], "did you mean bla_t?"),
    ("planted_bias.methods", ["lime"], "there is no lime under"),
    ("unstated_choices.datasets", ["painted_par"], "did you mean painted_pair?"),
    ("unstated_choices.datasets", ["painted_birds", "painted_birds"], "twice"),
    ("temperature_threshold.datasets", ["painted_par"], "did you mean painted_pair?"),
    ("temperature_threshold.temperatures", [0.1, 0.1], "twice"),
    ("abandoned_modules.datasets", ["photo"], "did you mean photos?"),
    (
        "abandoned_modules.variants.bla",
        {"explanation": "pointwise", "head": "trained", "temperature": 1},
        "the name is taken",
    ),
    (
        "abandoned_modules.variants.pointwise.explanation",
        "bounded_logits",
        "'concept_vector', 'pointwise', not bounded_logits",
    ),
    ("small_cnn.classes", [3, 3], "twice"),
    ("two_network_l2x.datasets", ["painted_par"], "did you mean painted_pair?"),
    ("two_network_l2x.datasets", ["photos", "photos"], "twice"),
    ("variant.bl", BLA, "the name is taken"),
    ("variant.bl_plus", GONE, "must exist, with explanation none"),
    ("variant.bl_plus", BLA, "must exist, with explanation none"),
]
"""A value that conflicts with other settings, and the remedy or reason in the message."""
ELSEWHERE = [
    ("variant.bla.explanation", "bla", "variant.bla.explanation", "'none', 'bounded_logits', 'l2x_f', not bla"),
    (
        "dataset.photos.images.kind",
        "x",
        "dataset.photos.images.kind",
        "'painted_birds', 'painted_flock', 'cats_vs_dogs', 'stanford_dogs', 'caltech_birds', 'oxford_pet', 'voc_2007', 'coco_2014', 'mnist', 'imagenet', 'image_folder', 'image_table', not x",
    ),
    (
        "dataset.photos.backbone.stochastic_depth",
        0.2,
        "dataset.photos.backbone.draws",
        "needs at least 5, not 1, with stochastic_depth 0.2; or set that to 0",
    ),
    (
        "dataset.cats_vs_dogs.backbone.stochastic_depth",
        0,
        "dataset.cats_vs_dogs.backbone.draws",
        "needs 1, not 5, with stochastic_depth 0; or set that to 0.2",
    ),
    ("variant.bla_ph.threshold_rule", "indicator", "variant.bla_ph", "the indicator has no gradient"),
    ("temperature_threshold.temperatures", [0.1, 0], "temperature_threshold.temperatures.1", "greater than 0, not 0"),
    (
        "temperature_threshold.threshold_factors",
        [-1],
        "temperature_threshold.threshold_factors.0",
        "greater than or equal to 0, not -1",
    ),
    (
        "temperature_threshold.threshold_rules",
        ["cut"],
        "temperature_threshold.threshold_rules.0",
        "'subtract', 'renormalise' or 'indicator', not 'cut'",
    ),
    (
        "abandoned_modules.variants.pointwise",
        {"explanation": "concept_vector", "head": "trained", "temperature": 0.1, "activation": "tanh"},
        "abandoned_modules.variants.pointwise.activation",
        "'linear' or 'relu', not 'tanh'",
    ),
    (f"{BIRDS}.bird_size", [0.5, 0.4], f"{BIRDS}.bird_size", "the smallest and then the largest"),
    (f"{BIRDS}.test_images", 15, f"{BIRDS}.test_images", "15 images are fewer than the 16 species"),
    (f"{BIRDS}.validation_images", 15, f"{BIRDS}.validation_images", "15 images are fewer than the 16 species"),
    (
        "dataset.painted_pair.images.train_images",
        1,
        "dataset.painted_pair.images.train_images",
        "fewer than the 2 species",
    ),
]
"""The same, where the message names another setting than the edited one."""


@pytest.mark.parametrize(("key", "meant"), UNKNOWN.items(), ids=UNKNOWN.keys())
def test_a_misspelt_setting_is_named_with_a_suggestion(key, meant, complaints):
    (line,) = complaints(edited((key, 1)))
    assert line.startswith(f"params.yaml: {key}: ")
    assert f"did you mean {meant}?" in line


@pytest.mark.parametrize(
    ("before", "right", "wrong", "key"),
    [
        ("{kind: cats_vs_dogs, image_size: 224, ", "resize", "resise", "dataset.cats_vs_dogs.images"),
        ("{kind: mnist, ", "classes", "clases", "dataset.mnist_3_vs_8.images"),
        (
            "{explanation: bounded_logits, head: trained_as_released, ",
            "temperature",
            "temprature",
            "variant.bla_ph_released",
        ),
    ],
)
def test_a_misspelt_setting_in_flow_style_is_named_with_a_suggestion(before, right, wrong, key, complaints):
    assert f"{before}{right}:" in TEXT
    lines = complaints(TEXT.replace(f"{before}{right}:", f"{before}{wrong}:", 1))
    (line,) = [line for line in lines if line.startswith(f"params.yaml: {key}.{wrong}: ")]
    assert f"did you mean {right}?" in line


def test_a_setting_unlike_any_other_is_named_without_a_suggestion(complaints):
    (line,) = complaints(edited(("zzzz", 1)))
    assert line.startswith("params.yaml: zzzz: ")
    assert "did you mean" not in line


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_setting_is_named(key, complaints):
    (line,) = complaints(edited((key, GONE)))
    assert line.startswith(f"params.yaml: {key}: ")
    assert "missing" in line


def numbered(cases):
    return [f"{key} {number}" for number, (key, *_) in enumerate(cases)]


@pytest.mark.parametrize(("key", "value", "remedy"), LIMITS, ids=numbered(LIMITS))
def test_a_value_of_the_wrong_type_or_size_is_named_with_the_expected_value(key, value, remedy, complaints):
    (line,) = complaints(edited((key, value)))
    assert line.startswith(f"params.yaml: {key}: ")
    assert remedy in line
    assert line.endswith(f", not {value!r}")


def numbers(value, place=()):
    """The places of all numbers in the settings, as keys and indices."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, part in items for found in numbers(part, (*place, key))]
    return [place] if type(value) in (int, float) else []


@pytest.mark.parametrize(
    "place", [place for place in numbers(SHIPPED) if place != ("seed",)], ids=lambda place: ".".join(map(str, place))
)
def test_no_number_beyond_sense_is_accepted(place, complaints):
    settings = edited()
    *parents, last = place
    reduce(getitem, parents, settings)[last] = 10**18
    (line,) = complaints(settings)
    assert line.startswith(f"params.yaml: {'.'.join(map(str, place))}: ")
    assert "less than" in line or "no run" in line


@pytest.mark.parametrize(("key", "value", "remedy"), REFUSED, ids=numbered(REFUSED))
def test_a_value_that_conflicts_with_other_settings_is_named_with_the_reason(key, value, remedy, complaints):
    (line,) = complaints(edited((key, value)))
    assert line.startswith(f"params.yaml: {key}: ")
    assert remedy in line


@pytest.mark.parametrize(("key", "value", "named", "remedy"), ELSEWHERE, ids=numbered(ELSEWHERE))
def test_the_message_names_the_setting_to_change_even_if_another_was_edited(key, value, named, remedy, complaints):
    (line,) = complaints(edited((key, value)))
    assert line.startswith(f"params.yaml: {named}: ")
    assert remedy in line


@pytest.mark.parametrize("section", ["dataset", "variant"])
@pytest.mark.parametrize("name", ["Photos", "../x", "a-b", "", "_a", "a b", "a\n", "ä"])
def test_a_name_unsuitable_for_a_file_is_refused(section, name, complaints):
    settings = edited()
    settings[section][name] = {"dataset": PHOTOS, "variant": BLA}[section]
    text = "\n".join(complaints(settings))
    assert text.startswith(f"params.yaml: {section}.{name}: ")
    assert NAME in text
    assert text.endswith(f"not {name!r}")


def test_several_mistakes_are_listed_together(complaints):
    mistakes = [("runs", 1), ("variant.bla.temperature", 0), ("variant.bla_t.tempo", 1), ("statistics.alpha", GONE)]
    lines = complaints(edited(*mistakes))
    assert sorted(line.split(": ")[:2] for line in lines) == sorted(["params.yaml", key] for key, _ in mistakes)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "settings by name"),
        ("- runs\n- seed\n", "settings by name"),
        ("runs", "settings by name"),
        ("runs: [1", "not valid YAML"),
        ("runs: 1\n\tseed: 2\n", "not valid YAML"),
    ],
)
def test_a_file_without_settings_is_refused(text, part, complaints):
    first = complaints(text)[0]
    assert first.startswith("params.yaml: ")
    assert part in first


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"runs: 2 # \xe4\n")
    with pytest.raises(BlaError, match=r"params\.yaml: not valid YAML: "):
        load_settings(tmp_path / "params.yaml")


def test_a_missing_params_file_says_where_to_run(tmp_path):
    with pytest.raises(BlaError, match=r"params\.yaml: .*root of the repository"):
        load_settings(tmp_path / "params.yaml")


@pytest.mark.parametrize(("section", "name", "meant"), [("dataset", "photo", "photos"), ("variant", "bla-t", "bla_t")])
def test_an_unknown_entry_is_named_with_a_suggestion(section, name, meant):
    with pytest.raises(BlaError) as error:
        getattr(load_settings(), section)[name]
    assert str(error.value).startswith("params.yaml: ")
    assert name in str(error.value)
    assert f"did you mean {meant}?" in str(error.value)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([("learned_explainers", ["cam"])], "learned_explainers: cam does not learn; list it under explainers"),
        ([("explainer.lime.pattern", 5)], "explainer.lime.pattern: unknown setting (did you mean patterns?)"),
        ([("explainer.cam", {"size": 3})], "explainer.cam.size: unknown setting"),
        ([("explainer.limes", {})], "explainer.limes: no such method in src/bla/explainers (did you mean lime?)"),
        ([("explainer.attention", {})], "explainer.attention: no such method in src/bla/explainers"),
        ([("learned_explainers", ["attention"])], "learned_explainers: there is no attention under src/bla/explainers"),
        ([("explainers", ["cam"]), ("explainer.rise", 3)], "explainer.rise: input should be a valid dictionary, not 3"),
    ],
)
def test_a_method_in_the_wrong_list_or_with_a_wrong_setting_is_named_with_the_remedy(edits, message, complaints):
    (line,) = complaints(edited(*edits))
    assert line == f"params.yaml: {message}"


def test_a_learned_method_listed_under_explainers_is_refused(monkeypatch):
    monkeypatch.setattr("pipeline.stages.settings.explainer_class", lambda name: Attention if name == "cam" else explainer_class(name))  # fmt: skip
    monkeypatch.setattr("pipeline.stages.settings.method_settings", lambda *_: None)
    with pytest.raises(BlaError, match="explainers: cam must be fitted; list it under learned_explainers"):
        check_methods(load_settings())


@pytest.mark.parametrize("text", ["a: " + "[" * 5000 + "]" * 5000, "[" * 20000, "a:\n" + "- " * 1200 + "x"])
def test_brackets_nested_too_deeply_are_refused(text, complaints):
    first = complaints(text)[0]
    assert first.startswith("params.yaml: not valid YAML: ")


@pytest.mark.parametrize("text", ["x: 1\n" * 2_500_000, "# " + "x" * 1_000_001, "a: '" + "b" * 10_000_000 + "'"])
def test_a_file_of_megabytes_is_refused_without_reading_it(text, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BlaError, match=r"params\.yaml: [\d,]+ bytes are more than 100,000"):
        load_settings(tmp_path / "params.yaml")
