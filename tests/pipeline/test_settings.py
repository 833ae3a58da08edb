"""params.yaml: the shipped file is valid, and every mistake in it is named with its full name, one a line."""

import copy
from pathlib import Path

import pytest
import yaml

from bla.base.errors import BlaError
from bla.base.specs import (
    BoundedLogits,
    ClutteredDigits,
    ImageFolder,
    ImageNet,
    Mnist,
    NoExplanation,
    OxfordPet,
    Photographs,
)
from pipeline.run.settings import load_settings

TEXT = Path("params.yaml").read_text()
SHIPPED = yaml.safe_load(TEXT)
BLA, PHOTOS = SHIPPED["variant"]["bla"], SHIPPED["dataset"]["photos"]
GONE = object()


def edited(*edits):
    """The shipped settings with (dotted key, value) edits; the value GONE deletes the key."""
    settings = copy.deepcopy(SHIPPED)
    for key, value in edits:
        *parents, last = key.split(".")
        here = settings
        for name in parents:
            here = here[name]
        if value is GONE:
            del here[last]
        else:
            here[last] = copy.deepcopy(value)
    return settings


@pytest.fixture
def accepted(tmp_path):
    """A function from settings, which must be valid, to what is loaded."""

    def load(settings, **style):
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False, **style)
        (tmp_path / "params.yaml").write_text(text)
        return load_settings(tmp_path / "params.yaml")

    return load


@pytest.fixture
def complaints(tmp_path, monkeypatch):
    """A function from settings to the lines of the error; reports are looked up in the repository."""

    def check(settings):
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False)
        (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(BlaError) as error:
            load_settings(tmp_path / "params.yaml")
        return str(error.value).replace(f"{tmp_path}/", "").splitlines()

    return check


def test_the_shipped_file_is_valid():
    settings = load_settings()
    kinds = {name: type(entry.images) for name, entry in settings.dataset.items()}
    paper = ("cats_vs_dogs", "stanford_dogs", "caltech_birds")
    assert kinds == {"cluttered_digits": ClutteredDigits, "cluttered_3_vs_8": ClutteredDigits, "photos": ImageFolder} | {
        name: Photographs for kind in paper for name in (kind, f"{kind}_clean")
    } | {"oxford_pet": OxfordPet, "mnist_3_vs_8": Mnist, "imagenet": ImageNet}  # fmt: skip
    assert all(
        settings.dataset[name].images.kind == name.removesuffix("_clean")
        for kind in paper
        for name in (kind, f"{kind}_clean")
    )
    assert isinstance(settings.variant["bla_t"], BoundedLogits)
    assert isinstance(settings.variant["bl_plus"], NoExplanation)
    assert settings.digits() is settings.dataset["cluttered_digits"].images


@pytest.mark.parametrize("flow", [False, True, None], ids=["block style", "flow style", "mixed"])
def test_the_style_of_yaml_does_not_matter(flow, accepted):
    assert accepted(SHIPPED, default_flow_style=flow) == accepted(TEXT) == load_settings()


@pytest.mark.parametrize("name", SHIPPED["dataset"])
def test_every_entry_of_dataset_can_be_run(name, accepted):
    assert accepted(edited(("datasets", [name]), ("fidelity.datasets", [name]))).datasets == [name]
    assert accepted(edited(("datasets", [name]), ("fidelity.datasets", []))).fidelity.datasets == []
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
        *(("dataset.photos.backbone.normalisation", name) for name in ("imagenet", "keras_2021", "half")),
        *(("dataset.oxford_pet.images.classes", classes) for classes in ("species", "breeds")),
        *(("dataset.cats_vs_dogs.backbone.draws", draws) for draws in (5, 20)),
        *(("dataset.cats_vs_dogs.backbone.stochastic_depth", depth) for depth in (0.001, 0.2, 0.999)),
        ("dataset.mnist_3_vs_8.images.image_size", 28),
        ("fidelity.runs", 2),
        ("fidelity.draws", 2),
    ],
)  # fmt: skip
def test_a_value_that_is_accepted(key, value, accepted):
    found = accepted(edited((key, value)))
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value


@pytest.mark.parametrize("value", [1.0e-3, "1e-3"], ids=["number", "the string that YAML makes of 1e-3"])
def test_a_learning_rate_may_be_written_as_1e_3(value, tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(edited(("pretraining.learning_rate", value))))
    assert load_settings(tmp_path / "params.yaml").pretraining.learning_rate == 0.001


MUST_BE = "input should be greater than"
UNKNOWN = {
    "run": "runs",
    "statistics.alfa": "alpha",
    "pretraining.epoch": "epochs",
    "variant.bla_t.temprature": "temperature",
    "variant.bl_plus.heads": "head",
    "variant.l2x_f.threshold_factr": "threshold_factor",
    "dataset.photos.imagess": "images",
    "dataset.photos.images.resise": "resize",
    "dataset.photos.backbone.architekture": "architecture",
    "dataset.photos.training.drop_out": "dropout",
    "dataset.cluttered_digits.images.fragment": "fragments",
    "fidelity.run": "runs",
    "fidelity.dataset_names": "datasets",
    "sensitivity.temperature": "temperatures",
    "l2x.reading": "readings",
    "l2x.readings.divided.back_ground": "background",
    "l2x.digits.run": "runs",
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
MISSING = ["runs", "variant", "statistics.alpha", "pretraining.epochs", "variant.bla_t.head", "variant.l2x_f.k"]
MISSING += ["variant.bla.explanation", "dataset.photos.training", "dataset.photos.backbone.weights"]
MISSING += ["l2x", "l2x.k", "l2x.digits.k", "l2x.readings.multiplied.temperature"]
MISSING += ["fidelity", "fidelity.datasets", "fidelity.runs", "fidelity.draws", "dataset.oxford_pet.images.classes"]
MISSING += [
    "dataset.cats_vs_dogs.images.image_size",
    "dataset.imagenet.images.path",
    "dataset.mnist_3_vs_8.images.classes",
]
MISSING += ["dataset.photos.images.kind", "dataset.photos.images.path", "dataset.cluttered_digits.images.classes"]
RUN = "under `dataset`"
HEADS = "'trained', 'frozen', 'trained_as_released' or 'trained_reloaded'"
WRONG = [
    ("variant.bla.temperature", 0, f"{MUST_BE} 0, not 0"),
    ("variant.bla.temperature", float("nan"), "input should be less than inf, not nan"),
    ("variant.bla.temperature", float("inf"), "input should be less than inf, not inf"),
    ("variant.bla.threshold_factor", -0.1, f"{MUST_BE} or equal to 0, not -0.1"),
    ("variant.l2x_f.k", 0, f"{MUST_BE} or equal to 1, not 0"),
    ("runs", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("seed", -1, f"{MUST_BE} or equal to 0, not -1"),
    ("statistics.alpha", 0, f"{MUST_BE} or equal to 0.0001, not 0"),
    ("dataset.photos.training.dropout", 1, "input should be less than 1, not 1"),
    ("dataset.photos.images.image_size", 31, f"{MUST_BE} or equal to 32, not 31"),
    ("dataset.photos.images.resize", "cubic", "input should be 'bilinear' or 'bilinear_antialias', not 'cubic'"),
    ("dataset.photos.images", None, "input should be a valid dictionary or object to extract fields from, not None"),
    ("dataset.photos.images.path", "", "string should have at least 1 character, not ''"),
    ("variant.bla.head", "trainde", f"input should be {HEADS}, not 'trainde'"),
    ("variant.bl_plus.head", "frozen", "input should be 'trained', not 'frozen'"),
    ("runs", 2.5, "input should be a valid integer, got a number with a fractional part, not 2.5"),
    ("runs", "many", "input should be a valid integer, unable to parse string as an integer, not 'many'"),
    ("seed", None, "input should be a valid integer, not None"),
    ("variant.bla.temperature", [1], "input should be a valid number, not [1]"),
    ("datasets", "photos", "input should be a valid list, not 'photos'"),
    ("dataset.photos", None, "input should be a valid dictionary or instance of DatasetEntry, not None"),
    ("pretraining", 3, "input should be a dictionary or an instance of Pretraining, not 3"),
    ("datasets", ["cluttered_digit"], "there is no cluttered_digit under `dataset` (did you mean cluttered_digits?)"),
    ("variants", ["bla_tt"], "there is no bla_tt under `variant` (did you mean bla_t?)"),
    ("variants", ["qqqq"], "there is no qqqq under `variant`"),
    ("reports", ["table"], "there is no table under reports/notebooks (did you mean table1?)"),
    ("datasets", ["photos", "photos"], "a name stands there twice"),
    ("variants", ["bla", "l2x_f", "bla"], "a name stands there twice"),
    ("reports", ["table1", "table1"], "a name stands there twice"),
    ("variants", ["bla", "bl_plus"], "bl_plus has no explanation; the baselines BL and BL+ always run"),
    ("variant.bla_ph.threshold_factor", float("inf"), "input should be less than inf, not inf"),
    ("dataset.photos.training.learning_rate", 1e9, "input should be less than or equal to 10, not 1000000000.0"),
    ("dataset.photos.images.test_share", 0, f"{MUST_BE} 0, not 0"),
    ("dataset.photos.images.test_share", 1, "input should be less than 1, not 1"),
    ("dataset.photos.images.masks", "png", "input should be 'binary' or 'trimap', not 'png'"),
    ("dataset.photos.images.train_images_per_class", 0, f"{MUST_BE} or equal to 1, not 0"),
    ("dataset.oxford_pet.images.classes", "cats", "input should be 'species' or 'breeds', not 'cats'"),
    ("dataset.mnist_3_vs_8.images.image_size", 27, f"{MUST_BE} or equal to 28, not 27"),
    ("dataset.mnist_3_vs_8.images.classes", [3, 3], "a digit stands there twice"),
    ("dataset.cats_vs_dogs.images.image_size", 31, f"{MUST_BE} or equal to 32, not 31"),
    (
        "dataset.photos.backbone.normalisation",
        "keras",
        "input should be 'imagenet', 'keras_2021' or 'half', not 'keras'",
    ),
    ("dataset.photos.backbone.stochastic_depth", 1, "input should be less than 1, not 1"),
    ("dataset.photos.backbone.stochastic_depth", -0.1, f"{MUST_BE} or equal to 0, not -0.1"),
    ("dataset.photos.backbone.draws", 0, f"{MUST_BE} or equal to 1, not 0"),
    ("dataset.photos.backbone.draws", 5, "needs 1, not 5, with stochastic_depth 0; or set that to 0.2"),
    ("dataset.cats_vs_dogs.backbone.draws", 4, "needs at least 5, not 4, with stochastic_depth 0.2; or set that to 0"),
    ("dataset.cats_vs_dogs.backbone.draws", 1, "needs at least 5, not 1, with stochastic_depth 0.2; or set that to 0"),
    (
        "dataset.cats_vs_dogs.backbone.draws",
        GONE,
        "needs at least 5, not 1, with stochastic_depth 0.2; or set that to 0",
    ),
    ("explainers", ["cam", "grad_kam"], "there is no grad_kam under src/bla/explainers (did you mean grad_cam?)"),
    ("explainers", ["lime"], "there is no lime under src/bla/explainers"),
    ("explainers", ["cam", "cam"], "a name stands there twice"),
    ("explainer.lime.patterns", 99, f"{MUST_BE} or equal to 100, not 99"),
    ("explainer.lime.presence", 1, "input should be less than 1, not 1"),
    ("explainer.lime.output", "odds", "input should be 'probability' or 'logit', not 'odds'"),
    ("explainer.lime.patterns_of", "class", "input should be 'dataset' or 'image', not 'class'"),
    ("explainer.rise.grid", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("faithfulness.images", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("faithfulness.slow_images", 17, "17 is more than images, 16"),
    ("faithfulness.check_images", 7, "7 is more than slow_images, 6"),
    ("faithfulness.run", 20, "there is no run 20; the last of 20 is 19"),
    ("faithfulness.constant_maps", "one", "input should be 'zero' or 'leave_out', not 'one'"),
    ("faithfulness.orders", 0, f"{MUST_BE} or equal to 1, not 0"),
    ("variant.cam", BLA, "the name is taken: it is an explanation method (`explainers`)"),
    ("variant.mask", BLA, "the name is taken: it is an explanation method (`explainers`)"),
    ("fidelity.datasets", ["cluttered_3_v_8"], f"there is no cluttered_3_v_8 {RUN} (did you mean cluttered_3_vs_8?)"),
    ("fidelity.datasets", ["cluttered_digits", "cluttered_digits"], "a name stands there twice"),
    ("fidelity.datasets", None, "input should be a valid list, not None"),
    ("fidelity.runs", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("fidelity.draws", 1, f"{MUST_BE} or equal to 2, not 1"),
    (
        "sensitivity.datasets",
        ["cluttered_3_v_8"],
        f"there is no cluttered_3_v_8 {RUN} (did you mean cluttered_3_vs_8?)",
    ),
    ("sensitivity.temperatures", [0.1, 0.1], "a value stands there twice"),
    ("sensitivity.threshold_rules", [], "list should have at least 1 item after validation, not 0, not []"),
    ("alternatives.runs", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("alternatives.datasets", ["photo"], f"there is no photo {RUN} (did you mean photos?)"),
    ("alternatives.variants", {}, "dictionary should have at least 1 item after validation, not 0, not {}"),
    (
        "alternatives.variants.bla",
        {"explanation": "pointwise", "head": "trained", "temperature": 1},
        "the name is taken: BLA always runs beside them",
    ),
    ("alternatives.variants.pointwise.temperature", 0, f"{MUST_BE} 0, not 0"),
    ("alternatives.variants.concept_vector.activation", "tanh", "input should be 'linear' or 'relu', not 'tanh'"),
    (
        "alternatives.variants.pointwise.explanation",
        "bounded_logits",
        "must be one of 'concept_vector', 'pointwise', not bounded_logits",
    ),
    ("small_cnn.classes", [3, 3], "a digit stands there twice"),
    ("small_cnn.data", "fashion", "input should be 'digits' or 'mnist', not 'fashion'"),
    ("small_cnn.images", 19, f"{MUST_BE} or equal to 20, not 19"),
    ("l2x.datasets", ["cluttered_3_v_8"], f"there is no cluttered_3_v_8 {RUN} (did you mean cluttered_3_vs_8?)"),
    ("l2x.datasets", ["photos", "photos"], "a name stands there twice"),
    ("l2x.readings", {}, "dictionary should have at least 1 item after validation, not 0, not {}"),
    ("l2x.readings.divided.temperature", 0, f"{MUST_BE} 0, not 0"),
    ("l2x.readings.divided.background", "grey", "input should be 'black' or 'mean', not 'grey'"),
    ("l2x.readings.divided.straight_through", 2, "input should be a valid boolean, unable to interpret input, not 2"),
    ("l2x.k", 0, f"{MUST_BE} or equal to 1, not 0"),
    ("l2x.runs", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("l2x.digits.k", 49, "input should be less than or equal to 48, not 49"),
    ("l2x.digits.epochs", 0, f"{MUST_BE} or equal to 1, not 0"),
    ("sensitivity.runs", 1, f"{MUST_BE} or equal to 2, not 1"),
    ("variant.bl", BLA, "the name is taken: BL is the baseline and has no settings of its own"),
    ("variant.bl_plus", GONE, "must exist, with explanation none; it is the baseline that trains on"),
    ("variant.bl_plus", BLA, "must exist, with explanation none; it is the baseline that trains on"),
]
NAME = "string should match pattern '^[a-z0-9][a-z0-9_]*$'"
DIGITS = "dataset.cluttered_digits.images"
ELSEWHERE = [  # the line names another key than the one that was edited
    (
        "variant.bla.explanation",
        "bla",
        "variant.bla.explanation: must be one of 'none', 'bounded_logits', 'l2x_f', not bla",
    ),
    (
        "dataset.photos.images.kind",
        "x",
        "dataset.photos.images.kind: must be one of 'cluttered_digits', 'cats_vs_dogs', 'stanford_dogs', "
        "'caltech_birds', 'oxford_pet', 'mnist', 'imagenet', 'image_folder', not x",
    ),
    (
        "dataset.photos.backbone.stochastic_depth",
        0.2,
        "dataset.photos.backbone.draws: needs at least 5, not 1, with stochastic_depth 0.2; or set that to 0",
    ),
    (
        "dataset.cats_vs_dogs.backbone.stochastic_depth",
        0,
        "dataset.cats_vs_dogs.backbone.draws: needs 1, not 5, with stochastic_depth 0; or set that to 0.2",
    ),
    (
        "variant.bla_ph.threshold_rule",
        "indicator",
        "variant.bla_ph: the indicator has no gradient, so with a frozen head nothing trains",
    ),
    (f"{DIGITS}.classes", [1, 1], f"{DIGITS}.classes: a digit stands there twice"),
    ("sensitivity.temperatures", [0.1, 0], f"sensitivity.temperatures.1: {MUST_BE} 0, not 0"),
    ("sensitivity.threshold_factors", [-1], f"sensitivity.threshold_factors.0: {MUST_BE} or equal to 0, not -1"),
    (
        "sensitivity.threshold_rules",
        ["cut"],
        "sensitivity.threshold_rules.0: input should be 'subtract', 'renormalise' or 'indicator', not 'cut'",
    ),
    (f"{DIGITS}.fragment_size", 37, f"{DIGITS}: needs fragment_size <= digit_size <= image_size"),
    (f"{DIGITS}.digit_size", 113, f"{DIGITS}: needs fragment_size <= digit_size <= image_size"),
    (f"{DIGITS}.test_images", 9, f"{DIGITS}: fewer images than classes"),
]
NO_DIGITS = [("dataset.cluttered_digits", GONE), ("datasets", ["cluttered_3_vs_8"])]


@pytest.mark.parametrize(("key", "meant"), UNKNOWN.items(), ids=UNKNOWN.keys())
def test_a_misspelt_setting(key, meant, complaints):
    assert complaints(edited((key, 1))) == [f"params.yaml: {key}: unknown setting (did you mean {meant}?)"]


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("{kind: cats_vs_dogs, image_size: 224, resize:", "{kind: cats_vs_dogs, image_size: 224, resise:", "dataset.cats_vs_dogs.images.resise: unknown setting (did you mean resize?)"),
        ("{kind: mnist, classes:", "{kind: mnist, clases:", "dataset.mnist_3_vs_8.images.clases: unknown setting (did you mean classes?)"),
        ("{explanation: bounded_logits, head: trained_as_released, temperature:", "{explanation: bounded_logits, head: trained_as_released, temprature:", "variant.bla_ph_released.temprature: unknown setting (did you mean temperature?)"),
    ],
)  # fmt: skip
def test_a_misspelt_setting_in_flow_style(right, wrong, line, complaints):
    assert right in TEXT
    assert f"params.yaml: {line}" in complaints(TEXT.replace(right, wrong, 1))


def test_a_setting_like_no_other(complaints):
    assert complaints(edited(("zzzz", 1))) == ["params.yaml: zzzz: unknown setting"]


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_setting(key, complaints):
    assert complaints(edited((key, GONE))) == [f"params.yaml: {key}: this setting is missing"]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{key} {i}" for i, (key, _, _) in enumerate(WRONG)])
def test_a_wrong_value(key, value, message, complaints):
    assert complaints(edited((key, value))) == [f"params.yaml: {key}: {message}"]


@pytest.mark.parametrize(("key", "value", "line"), ELSEWHERE, ids=[key for key, _, _ in ELSEWHERE])
def test_a_kind_that_is_not_there_and_images_that_do_not_fit(key, value, line, complaints):
    assert complaints(edited((key, value))) == [f"params.yaml: {line}"]


@pytest.mark.parametrize("section", ["dataset", "variant"])
@pytest.mark.parametrize("name", ["Photos", "../x", "a-b", "", "_a", "a b", "a\n", "ä"])
def test_a_name_that_does_not_suit_a_file(section, name, complaints):
    settings = edited()
    settings[section][name] = {"dataset": PHOTOS, "variant": BLA}[section]
    assert "\n".join(complaints(settings)) == f"params.yaml: {section}.{name}: {NAME}, not {name!r}"


def test_the_images_of_the_embedded_backbone_must_stay(complaints):
    message = "must stay, of kind cluttered_digits: it trains the embedded backbone"
    for edits in (NO_DIGITS, [("dataset.cluttered_digits", PHOTOS)]):
        assert complaints(edited(*edits)) == [f"params.yaml: dataset.cluttered_digits: {message}"]


def test_several_mistakes_are_listed_together(complaints):
    mistakes = [("runs", 1), ("variant.bla.temperature", 0), ("variant.bla_t.tempo", 1), ("statistics.alpha", GONE)]
    lines = complaints(edited(*mistakes))
    assert sorted(line.split(": ")[:2] for line in lines) == sorted(["params.yaml", key] for key, _ in mistakes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold settings by name"),
        ("- runs\n- seed\n", "must hold settings by name"),
        ("runs", "must hold settings by name"),
        ("runs: [1", "not valid YAML: while parsing a flow sequence"),
        ("runs: 1\n\tseed: 2\n", "not valid YAML: while scanning for the next token"),
    ],
)
def test_a_file_that_holds_no_settings(text, message, complaints):
    assert complaints(text)[0] == f"params.yaml: {message}"


def test_a_file_in_another_encoding(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"runs: 2 # \xe4\n")
    with pytest.raises(BlaError, match=r"params\.yaml: not valid YAML: "):
        load_settings(tmp_path / "params.yaml")


def test_a_missing_file(tmp_path):
    with pytest.raises(BlaError, match=r"params\.yaml: no such file; run this in the root of the repository$"):
        load_settings(tmp_path / "params.yaml")


@pytest.mark.parametrize(("section", "name", "meant"), [("dataset", "photo", "photos"), ("variant", "bla-t", "bla_t")])
def test_to_ask_for_an_entry_that_is_not_there_is_an_error_of_the_user(section, name, meant):
    with pytest.raises(BlaError) as error:
        getattr(load_settings(), section)[name]
    assert str(error.value) == f"params.yaml: there is no {name} (did you mean {meant}?)"
