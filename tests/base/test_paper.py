"""The paper's settings: the shipped entries have them, and every departure is described in words."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pandas as pd
import pytest

from bla.base.paper import (
    ABANDONED,
    ALPHA,
    BACKBONE,
    COLUMNS,
    DATASETS,
    IMAGES,
    LIME,
    PUBLISHED_AS,
    RUNS,
    SCHEDULES,
    SMALL_CNN,
    TWO_NETWORK_L2X,
    VARIANTS,
    abandoned_departures,
    departures,
    image_departures,
    l2x_reading_departures,
    lime_departures,
    small_cnn_departures,
    two_network_l2x_departures,
    variant_departures,
)
from bla.base.specs import ConceptVector, ImageFolder, L2XReading, NoExplanation, Optimiser, Photographs, Pointwise
from bla.explainers.posthoc.lime import LIME as METHOD
from pipeline.run.settings import SmallModule, SmallNetwork, load_settings

PUBLISHED = pd.read_csv(Path(__file__).parents[2] / "data/published_values.csv").query("where == 'Table 1'")


@pytest.fixture(scope="module")
def settings():
    return load_settings()


def departures_of(settings, name, runs=RUNS):
    """The departures of a shipped entry."""
    entry = settings.dataset[name]
    return departures(entry.images, entry.backbone, entry.training, runs, ALPHA)


@pytest.mark.parametrize("name", DATASETS)
def test_the_shipped_entries_have_the_papers_settings(name, settings):
    assert departures_of(settings, name, settings.runs) == []


@pytest.mark.parametrize("name", DATASETS)
def test_the_clean_entries_differ_only_in_contrast_and_noise(name, settings):
    wanted = ["normalisation imagenet (paper: keras_2021)", "stochastic_depth 0.0 (paper: 0.2)"]
    assert departures_of(settings, f"{name}_clean", settings.runs) == wanted


def test_departures_are_defined_only_for_the_papers_images(settings):
    others = [name for name, entry in settings.dataset.items() if entry.images.kind not in DATASETS]
    assert len(others) >= 4
    assert all(departures_of(settings, name, 2) == [] for name in others)


CHANGED = {
    "image_size": 112,
    "resize": "bilinear_antialias",
    "validation_images": 500,
    "architecture": "efficientnet_b0",
    "weights": "own.safetensors",
    "normalisation": "half",
    "output_stride": 16,
    "stochastic_depth": 0.1,
    "draws": 4,
    "tail": "own_softmax",
    "batch_size": 64,
    "epochs": 3,
    "learning_rate": 0.01,
    "dropout": 0.5,
    "adam_epsilon": 1e-8,
}


def of_birds(**changes):
    """The departures of the entry of the paper's birds after some changes."""
    parts = [Photographs(kind="caltech_birds", **IMAGES), BACKBONE, SCHEDULES["caltech_birds"]]
    for name, value in changes.items():
        parts = [replace(part, **{name: value}) if name in asdict(part) else part for part in parts]
    return departures(*parts, RUNS, ALPHA)


@pytest.mark.parametrize(("name", "value"), CHANGED.items(), ids=CHANGED.keys())
def test_every_changed_setting_is_named_with_the_papers_value(name, value):
    published = IMAGES | asdict(BACKBONE) | asdict(SCHEDULES["caltech_birds"])
    assert of_birds(**{name: value}) == [f"{name} {value} (paper: {published[name]})"]


def test_a_square_image_size_is_its_side():
    assert of_birds(image_size=(224, 224)) == []
    assert of_birds(image_size=(112, 112)) == ["image_size 112 (paper: 224)"]
    assert of_birds(image_size=(224, 112)) == ["image_size (224, 112) (paper: 224)"]


def test_every_setting_of_images_backbone_and_schedule_is_compared():
    fields = asdict(Photographs(kind="caltech_birds", **IMAGES)) | asdict(BACKBONE) | asdict(SCHEDULES["caltech_birds"])
    assert CHANGED.keys() == fields.keys() - {"kind", "images_in_memory"}


def test_images_in_memory_is_no_departure():
    schedule = replace(SCHEDULES["caltech_birds"], images_in_memory=100)
    assert not departures(Photographs(kind="caltech_birds", **IMAGES), BACKBONE, schedule, RUNS, ALPHA)


def test_another_alpha_is_a_departure(settings):
    entry = settings.dataset["caltech_birds"]
    parts = (entry.images, entry.backbone, entry.training, RUNS)
    assert departures(*parts, ALPHA) == []
    assert departures(*parts, 0.5) == ["alpha 0.5 (paper: 0.05)"]


def test_several_departures_are_listed_together():
    assert of_birds(epochs=6, normalisation="half") == ["normalisation half (paper: keras_2021)", "epochs 6 (paper: 5)"]


def test_more_draws_or_runs_are_no_departure_but_fewer_runs_are(settings):
    assert of_birds(draws=7) == []
    assert departures_of(settings, "caltech_birds", 21) == []
    assert departures_of(settings, "caltech_birds", 19) == ["19 runs (paper: 20)"]


def test_the_paper_trains_two_epochs_on_cats_vs_dogs_and_five_elsewhere():
    assert {kind: schedule.epochs for kind, schedule in SCHEDULES.items()} == {
        "cats_vs_dogs": 2,
        "stanford_dogs": 5,
        "caltech_birds": 5,
    }
    assert {replace(schedule, epochs=5) for schedule in SCHEDULES.values()} == {SCHEDULES["stanford_dogs"]}


def test_titles_cover_the_published_columns_and_datasets():
    assert set(PUBLISHED["dataset"]) == DATASETS.keys()
    assert set(PUBLISHED["method"]) == set(PUBLISHED_AS.values()) - {"BL+"}
    assert PUBLISHED["n_runs"].unique().tolist() == [RUNS]
    assert COLUMNS.keys() == PUBLISHED_AS.keys()


@pytest.mark.parametrize(
    ("key", "published"),
    [("bla_ph_released", "BLA-PH"), ("bla_ph_reloaded", "BLA-PH"), ("bla_t_indicator", "BLA-T"), ("l2x_f", "L2X-F")],
)
def test_each_reading_of_a_column_is_compared_with_the_published_column(key, published):
    assert PUBLISHED_AS[key] == published
    assert COLUMNS[key].startswith(published)


def test_readings_of_bla_ph_differ_from_bla_t_only_in_the_head():
    heads = {"bla_ph": "frozen", "bla_ph_released": "trained_as_released", "bla_ph_reloaded": "trained_reloaded"}
    for key, head in heads.items():
        assert VARIANTS[key] == replace(VARIANTS["bla_t"], head=head)
    assert replace(VARIANTS["bla_t"], threshold_factor=0) == VARIANTS["bla"]


def test_the_shipped_variants_have_the_papers_settings(settings):
    assert variant_departures(settings.variant) == {key: [] for key in VARIANTS}


def test_only_the_changed_variant_departs(settings):
    for key, variant in VARIANTS.items():
        found = variant_departures(settings.variant | {key: replace(variant, temperature=0.5)})
        assert found == {k: [] for k in VARIANTS} | {key: [f"{COLUMNS[key]}: temperature 0.5 (paper: 0.1)"]}


def test_a_variant_of_another_kind_departs_in_every_field(settings):
    found = variant_departures(settings.variant | {"bla": NoExplanation(explanation="none"), "l2x_f": VARIANTS["bla"]})
    assert found["bla"] == ["BLA: explanation none (paper: bounded_logits)"]
    assert found["l2x_f"] == [
        "L2X-F: explanation bounded_logits (paper: l2x_f)",
        "L2X-F: threshold_factor 0 (paper: None)",
        "L2X-F: threshold_rule subtract (paper: None)",
    ]


def test_user_defined_and_missing_columns_have_no_departures():
    assert (
        variant_departures({})
        == variant_departures({"own": NoExplanation(explanation="none")})
        == {key: [] for key in VARIANTS}
    )


def test_each_changed_setting_and_fewer_runs_are_departures_of_the_small_cnn():
    papers = SMALL_CNN | {"runs": RUNS}
    assert small_cnn_departures(papers) == small_cnn_departures(papers | {"runs": 21, "batch_size": 7}) == []
    assert small_cnn_departures(papers | {"classes": (1, 7)}) == ["classes (1, 7) (paper: (3, 8))"]
    found = small_cnn_departures(papers | {"epochs": 1, "runs": 5})
    assert found == ["epochs 1 (paper: 3)", "runs 5 (paper: 20)"]
    for name in SMALL_CNN:
        (departure,) = small_cnn_departures(papers | {name: "x"})
        assert departure.startswith(f"{name} x (paper: ")


def test_two_network_l2x_departs_only_by_its_settings_images_and_backbone():
    images = Photographs(kind="cats_vs_dogs", **IMAGES)
    assert two_network_l2x_departures(images, BACKBONE, TWO_NETWORK_L2X) == []
    found = two_network_l2x_departures(replace(images, image_size=112), BACKBONE, TWO_NETWORK_L2X | {"k": 4})
    assert found == ["image_size 112 (paper: 224)", "k 4 (paper: 8)"]
    others = ImageFolder(kind="image_folder", path="photos", image_size=224)
    assert two_network_l2x_departures(others, BACKBONE, TWO_NETWORK_L2X | {"k": 4}) == []


def names(model):
    return {field.name for field in fields(model)}


def test_every_setting_for_which_the_paper_has_a_value_is_compared():
    """All settings, except those that the paper leaves open, and those whose departure is an obstacle or a reading."""
    assert names(METHOD.Settings) - {"patterns_of"} == LIME.keys()
    assert names(ConceptVector) - {"explanation", "activation"} == ABANDONED.keys()
    assert names(Pointwise) - {"explanation"} == ABANDONED.keys()
    assert names(L2XReading) == {"temperature", "background", "straight_through"}
    small = SmallNetwork.model_fields.keys() | SmallModule.model_fields.keys() | names(Optimiser)
    assert small - {"data", "images", "batch_size", "module", "training", "runs"} == SMALL_CNN.keys() - {"alpha"}
    assert names(Optimiser) - {"batch_size"} == TWO_NETWORK_L2X.keys() - {"k"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"patterns": 5000, "patterns_of": "image"}, []),
        ({"patterns": 300}, ["LIME: patterns 300 (paper: 1000)"]),
        ({"presence": 0.8}, ["LIME: presence 0.8 (paper: 0.5)"]),
        ({"patterns": 999, "output": "logit"}, ["LIME: patterns 999 (paper: 1000)", "LIME: output logit (paper: probability)"]),
    ],
)  # fmt: skip
def test_limes_settings_are_compared(changed, told):
    assert lime_departures(asdict(METHOD.Settings()) | changed) == told


def test_the_paper_explains_all_test_images_by_lime():
    assert image_departures(2, 4653) == ["LIME of 2 images (paper: of all 4653)"]
    assert image_departures(4653, 4653) == []


def test_the_settings_of_the_abandoned_modules_are_compared(settings):
    vector = ConceptVector(explanation="concept_vector", head="trained", temperature=0.1, activation="linear")
    shipped = settings.abandoned_modules.variants | {"concept_vector": vector}
    assert abandoned_departures(shipped) == {key: [] for key in shipped}
    hot = {
        "hot": replace(shipped["pointwise"], temperature=3.7),
        "still": replace(shipped["concept_vector"], head="frozen"),
    }
    assert abandoned_departures(hot) == {
        "hot": ["temperature 3.7 (paper: 0.1)"],
        "still": ["head frozen (paper: trained)"],
    }


def test_the_temperature_of_two_network_l2x_is_01_as_a_factor_or_as_a_divisor(settings):
    assert all(l2x_reading_departures(r.temperature) == [] for r in settings.two_network_l2x.readings.values())
    for temperature in (3.7, 1.0, 0.2):
        assert l2x_reading_departures(temperature) == [f"temperature {temperature:g} (paper: 0.1 or 10)"]


@pytest.mark.parametrize("key", ["bla_t_renormalise", "bla_t_indicator"])
def test_other_readings_of_the_threshold_are_compared_too(key):
    assert variant_departures({key: VARIANTS[key]})[key] == []
    hot = variant_departures({key: replace(VARIANTS[key], temperature=3.7)})
    assert hot[key] == [f"{COLUMNS[key]}: temperature 3.7 (paper: 0.1)"]
