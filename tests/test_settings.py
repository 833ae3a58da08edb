"""params.yaml: the shipped file is valid, and every mistake in it is named with its full name, one a line."""

import copy
from pathlib import Path

import pytest
import yaml

from bla.errors import BlaError
from bla.specs import BoundedLogits, ClutteredDigits, ImageFolder, NoExplanation
from pipeline.settings import load_settings

SHIPPED = yaml.safe_load(Path("params.yaml").read_text())
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
    assert kinds == {"cluttered_digits": ClutteredDigits, "cluttered_3_vs_8": ClutteredDigits, "photos": ImageFolder}
    assert isinstance(settings.variant["bla_t"], BoundedLogits)
    assert isinstance(settings.variant["bl_plus"], NoExplanation)
    assert settings.digits() is settings.dataset["cluttered_digits"].images


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
}
MISSING = ["runs", "variant", "statistics.alpha", "pretraining.epochs", "variant.bla_t.head", "variant.l2x_f.k"]
MISSING += ["variant.bla.explanation", "dataset.photos.training", "dataset.photos.backbone.weights"]
MISSING += ["dataset.photos.images.kind", "dataset.photos.images.path", "dataset.cluttered_digits.images.classes"]
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
    ("variant.bla.head", "trainde", "input should be 'trained', 'frozen' or 'trained_reloaded', not 'trainde'"),
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
    ("variant.bl", BLA, "the name is taken: BL is the baseline and has no settings of its own"),
    ("variant.bl_plus", GONE, "must exist, with explanation none; it is the baseline that trains on"),
    ("variant.bl_plus", BLA, "must exist, with explanation none; it is the baseline that trains on"),
]
NAME = "string should match pattern '^[a-z0-9][a-z0-9_]*$'"
DIGITS = "dataset.cluttered_digits.images"
ELSEWHERE = [  # the line names another key than the one that was edited
    ("variant.bla.explanation", "bla", "variant.bla.explanation: must be one of 'none', 'bounded_logits', 'l2x_f'"),
    (
        "dataset.photos.images.kind",
        "x",
        "dataset.photos.images.kind: must be one of 'cluttered_digits', 'image_folder'",
    ),
    (
        "variant.bla_ph.threshold_rule",
        "indicator",
        "variant.bla_ph: the indicator has no gradient, so with a frozen head nothing trains",
    ),
    (f"{DIGITS}.classes", [1, 1], f"{DIGITS}.classes: a digit stands there twice"),
    (f"{DIGITS}.fragment_size", 37, f"{DIGITS}: needs fragment_size <= digit_size <= image_size"),
    (f"{DIGITS}.digit_size", 113, f"{DIGITS}: needs fragment_size <= digit_size <= image_size"),
    (f"{DIGITS}.test_images", 9, f"{DIGITS}: fewer images than classes"),
]
NO_DIGITS = [("dataset.cluttered_digits", GONE), ("datasets", ["cluttered_3_vs_8"])]


@pytest.mark.parametrize(("key", "meant"), UNKNOWN.items(), ids=UNKNOWN.keys())
def test_a_misspelt_setting(key, meant, complaints):
    assert complaints(edited((key, 1))) == [f"params.yaml: {key}: unknown setting (did you mean {meant}?)"]


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
