"""A dataset whose classifier is the user's own: BL is that classifier, and every stage runs with its one value."""

import copy
import json
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file
from scipy import stats

from bla.base.atomic import save_text
from bla.base.errors import BlaError
from pipeline.artifacts.tables import save_table
from pipeline.run.checkpoint_head import checkpoint_head
from pipeline.run.predictions import predictions_of
from pipeline.run.settings import load_settings
from pipeline.run.stage import run_by_name

CLASSES = ["bird", "cat", "dog"]
NETWORK = {"architecture": "test_resnet", "weights": "mine.pth", "normalisation": "imagenet", "output_stride": 16}
TRAINING = {"batch_size": 8, "epochs": 2, "learning_rate": 0.01, "dropout": 0.2, "adam_epsilon": 1e-7}
ENTRY = {"images": {"kind": "image_folder", "path": "photos", "image_size": 32}, "backbone": NETWORK, "training": TRAINING, "classifier": "own"}  # fmt: skip


def save_photos(folder, save_png):
    """Noisy photographs, of 32 pixels so that nothing resizes them, whose colour shows the class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for channel, name in enumerate(CLASSES):
            for number in range(count):
                pixels = rng.integers(0, 200, (32, 32, 3))
                pixels[..., channel] += 12
                save_png(folder / split / name / f"{number}.png", pixels.astype(np.uint8))


def pixels_of(folder, split):
    """Normalised pixels `[N, 3, H, W]` and labels, read without the pipeline."""
    paths = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / split / name).iterdir())]
    images = torch.tensor(np.stack([np.array(Image.open(path)) for path, _ in paths])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images - mean) / std, torch.tensor([label for _, label in paths])


@torch.no_grad()
def own_model(folder):
    """A random network whose head is fitted to the training photographs by least squares."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3, output_stride=16).eval()
    for name, value in model.state_dict().items():
        if value.ndim == 1 and "running_mean" not in name and name != "fc.bias":
            value += torch.rand(value.shape) * 0.5
    pixels, labels = pixels_of(folder, "train")
    pooled = model.forward_head(model.forward_features(pixels), pre_logits=True)
    pooled = torch.cat([pooled, torch.ones(len(pooled), 1)], dim=1)
    inverse = torch.linalg.inv(pooled.T @ pooled + torch.eye(pooled.shape[1]))
    solution = inverse @ pooled.T @ (4 * torch.nn.functional.one_hot(labels, 3).float() - 1)
    model.fc.weight.copy_(solution[:-1].T)
    model.fc.bias.copy_(solution[-1])
    return model


def save_checkpoint(path, model):
    """As a training program saves it: under a key, with DataParallel's prefix."""
    torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)


EXPERIMENTS = ("unstated_choices", "temperature_threshold", "abandoned_modules", "two_network_l2x", "planted_bias")
TRAINING_HEADS = ("unstated_choices", "two_network_l2x", "planted_bias")
CHANGES = {
    "datasets": ["photos"],
    "variants": ["bla_ph", "bla_t"],
    "explainers": ["cam", "random"],
    "learned_explainers": ["l_cam_fm"],
    "runs": 6,
    "faithfulness.run": 1,
    "faithfulness.images": 4,
    "faithfulness.slow_images": 2,
    "gallery_images": 1,
    "temperature_threshold.threshold_factors": [0.98],
    "reports": ["table1"],
    "abandoned_modules.variants": {"pointwise": {"explanation": "pointwise", "head": "trained", "temperature": 0.1}},
    "dataset.photos": ENTRY,
} | {f"{experiment}.datasets": ["photos"] for experiment in EXPERIMENTS}
OF_PHOTOS = (
    "prepare",
    "backbone",
    "features",
    "baseline",
    "train_variant bla_ph",
    "train_variant bla_t",
    "fit l_cam_fm",
)
EXPLAINING = ("lime", "maps", "faithfulness")
OF_ALL = ("settings", "tests", "table1", "table2", "compare_methods", "learned_methods", "explanation_size", "what_the_method_does")  # fmt: skip
LAST = ("agreement", "browser", "errors", "structure", "study_answers", "x_features", "claims")
EMPTY = {"small_cnn_runs": "data,pooling", "subset_selection_runs": "data"}
"""Tables of experiments without these photographs, which `claims` reads."""


def stage(words, *more):
    name, *rest = words.split()
    run_by_name([name, *more, *rest])


@pytest.fixture
def own(here, edit_params, save_png):
    """A small project with an own classifier, in which nothing has run; returns the model."""
    edit_params(here, copy.deepcopy(CHANGES))
    save_photos(here / "data/raw/photos", save_png)
    model = own_model(here / "data/raw/photos")
    save_checkpoint(here / "data/raw/mine.pth", model)
    return model


def up_to_baseline(end_of):
    """The first stages of the photographs; returns the message of the first one that fails."""
    for name in ("prepare", "backbone", "features", "baseline"):
        if message := end_of(name, "photos"):
            return message
    return None


@pytest.mark.slow
def test_every_stage_runs_with_the_one_value_of_an_own_classifier(own, here, capsys):
    for words in OF_PHOTOS:
        stage(words, "photos")
    printed = capsys.readouterr().out
    assert "bl_plus: no runs" in printed
    assert "dropped" not in printed
    for words in EXPLAINING:
        stage(words, "photos")
    for words in (*OF_ALL, *EXPERIMENTS):
        stage(words)
    printed = capsys.readouterr().out
    for experiment in TRAINING_HEADS:
        assert f"photos: left out of {experiment}" in printed
    for name, columns in EMPTY.items():
        (here / f"reports/tables/{name}.csv").write_text(columns + "\n")
    for words in LAST:
        stage(words)

    pixels, labels = pixels_of(here / "data/raw/photos", "test")
    with torch.no_grad():
        right = own(pixels).argmax(dim=1) == labels
    assert 0.4 < right.float().mean() < 1
    bl = pd.read_csv("data/evaluation/photos/bl.csv")
    assert bl["accuracy"].tolist() == [right.double().mean().item()]
    assert np.array_equal(load_file("data/evaluation/photos/bl.safetensors")["correct"], right[None])

    table = pd.read_csv("reports/tables/table1.csv")
    assert set(table["variant"]) == {"bl", "bla_ph", "bla_t"}
    assert table["mark"].isna().all()
    of_bl = table[table["variant"] == "bl"]
    assert (of_bl["n_runs"] == 1).all()
    assert of_bl["standard_error"].isna().all()
    assert (table.loc[table["variant"] != "bl", "n_runs"] == 6).all()
    text = Path("reports/tables/table1.md").read_text()
    assert f"| {right.double().mean():.4f} |" in text
    assert "nan" not in text.lower()
    heads = [load_file(f"models/learned/photos/{name}.safetensors")["head.weight"] for name in ("bla_ph", "bla_t")]
    assert np.array_equal(heads[0], np.repeat(own.fc.weight.detach().numpy()[None], 6, axis=0))
    assert not np.array_equal(heads[1], heads[0])

    tests = pd.read_csv("reports/tables/tests.csv")
    assert not (tests["against"] == "bl_plus").any()
    runs = pd.read_csv("reports/tables/runs.csv").query("variant == 'bla_ph'")
    against = tests.query("variant == 'bla_ph' and against == 'bl' and measure == 'loss'").iloc[0]
    differences = runs["loss"] - bl["loss"].item()
    assert against["p"] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=1e-4)
    claims = pd.read_csv("reports/tables/claims.csv").query("dataset == 'photos'")
    with_bl = claims[claims["text"].str.endswith("does not differ from BL")].iloc[0]
    assert "BL 0." in with_bl["ours"]
    assert "(one value)" in with_bl["ours"]
    assert "no BL+, since the classifier is your own" in set(claims["reason"])
    assert "nan" not in " ".join(claims["ours"].fillna(""))
    faithfulness = pd.read_csv("reports/tables/learned_methods.csv")
    assert dict(zip(faithfulness["method"], faithfulness["n_runs"], strict=True))["l_cam_fm"] == 1
    predicted = predictions_of("photos", load_settings(), [0, 9, 23])["bl"][2]  # of run 1, which BL does not have
    assert np.array_equal(predicted, right[[0, 9, 23]])
    cells = json.loads(Path("reports/notebooks/table1.ipynb").read_text())["cells"]
    _, *code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    exec("\n".join(code), {"datasets": ["photos"], "variants": ["bla_ph", "bla_t"]})
    assert "nan" not in capsys.readouterr().out


def test_outputs_in_another_order_are_named_and_a_file_of_labels_puts_them_right(own, here, end_of, edit_params):
    assert up_to_baseline(end_of) is None
    sorted_order = pd.read_csv("data/evaluation/photos/bl.csv")["accuracy"].item()
    with torch.no_grad():
        for parameter in own.fc.parameters():
            parameter.copy_(parameter[[1, 0, 2]].clone())  # bird and cat change places
    save_checkpoint(here / "data/raw/mine.pth", own)
    before = {path: path.read_bytes() for path in (here / "data/evaluation/photos").iterdir()}
    message = up_to_baseline(end_of)
    assert message.startswith("error in baseline photos: params.yaml: dataset.photos.classifier_labels: ")
    assert "bird as cat, cat as bird" in message
    assert {path: path.read_bytes() for path in before} == before
    (here / "data/raw/labels.txt").write_text("cat\nbird\ndog\n")
    edit_params(here, {"dataset.photos.classifier_labels": "labels.txt"})
    assert up_to_baseline(end_of) is None
    assert pd.read_csv("data/evaluation/photos/bl.csv")["accuracy"].item() == sorted_order


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ("bird\ncat\n", "labels.txt has 2 lines for 3 outputs"),
        ("bird\ncat\nfox\n", "labels.txt has no dog, but fox"),
        ("bird\ncat\ncat\n", "cat is listed twice"),
    ],
)
def test_labels_that_are_not_the_classes_are_named_before_the_extraction(labels, part, own, here, end_of, edit_params):
    (here / "data/raw/labels.txt").write_text(labels)
    edit_params(here, {"dataset.photos.classifier_labels": "labels.txt"})
    message = up_to_baseline(end_of)
    assert message.startswith("error in features photos: ")
    assert part in message
    assert not (here / "data/features").exists()


def save_classes_labels_and_head(here, classes, labels):
    save_table(here / "data/images/photos/classes.csv", pd.DataFrame({"label": range(2), "name": classes}))
    save_text(here / "data/raw/labels.txt", "\n".join(labels))
    head = {"checkpoint_head.weight": np.float32([[1, 2], [3, 4]]), "checkpoint_head.bias": np.float32([5, 6])}
    (here / "models/backbones").mkdir(parents=True)
    save_file(head, here / "models/backbones/photos.safetensors")


@pytest.mark.parametrize("forms", [("NFC", "NFC"), ("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_an_accent_may_be_part_of_its_letter_or_a_character_of_its_own(forms, here):
    classes, labels = (
        [normalize(form, name) for name in names]
        for form, names in zip(forms, (["bélier", "chat"], ["chat", "bélier"]), strict=True)
    )
    save_classes_labels_and_head(here, classes, labels)
    found = checkpoint_head("photos", "labels.txt")
    assert found.weight.tolist() == [[[3, 4], [1, 2]]]
    assert found.bias.tolist() == [[6, 5]]


TWO_FORMS = [normalize(form, "bélier") for form in ("NFC", "NFD")]


@pytest.mark.parametrize(
    ("classes", "labels", "place"),
    [
        (["bélier", "chat"], TWO_FORMS, "classifier_labels: labels.txt:"),
        (TWO_FORMS, ["bélier", "chat"], "images: the class"),
        (TWO_FORMS, TWO_FORMS, "images: the class"),
    ],
)
def test_two_names_that_differ_only_in_how_the_accent_is_stored_are_refused(classes, labels, place, here):
    save_classes_labels_and_head(here, classes, labels)
    with pytest.raises(BlaError) as error:
        checkpoint_head("photos", "labels.txt")
    assert str(error.value).startswith(f"params.yaml: dataset.photos.{place} bélier is listed twice (")


def test_a_head_of_other_classes_is_refused_before_the_extraction(own, here, end_of):
    save_checkpoint(here / "data/raw/mine.pth", timm.create_model("test_resnet", num_classes=5, output_stride=16))
    message = up_to_baseline(end_of)
    assert message.startswith("error in features photos: params.yaml: dataset.photos.classifier: ")
    assert "5 outputs, but the images have 3 classes (bird, cat, dog)" in message
    assert "set classifier to trained_here" in message
    assert not (here / "data/features").exists()


def test_a_checkpoint_without_a_head_is_refused(own, here, end_of):
    save_checkpoint(here / "data/raw/mine.pth", timm.create_model("test_resnet", num_classes=0, output_stride=16))
    message = end_of("backbone", "photos")
    assert message.startswith("error in backbone photos: params.yaml: dataset.photos.classifier: own: mine.pth: ")
    assert "the file has no fc.weight" in message
    assert not (here / "models").exists()


def test_a_head_with_more_layers_is_refused(own, here, end_of, edit_params):
    torch.manual_seed(0)
    edit_params(here, {"dataset.photos.backbone.architecture": "test_convnext", "dataset.photos.backbone.output_stride": None, "dataset.photos.images.image_size": 64})  # fmt: skip
    save_checkpoint(here / "data/raw/mine.pth", timm.create_model("test_convnext", num_classes=3))
    message = end_of("backbone", "photos")
    assert "no linear head on average-pooled features" in message
    assert "docs/own_classifier.md" in message


def test_what_is_dropped_from_a_checkpoint_is_said(own, end_of, edit_params, here, capsys):
    edit_params(here, {"dataset.photos.classifier": "trained_here"})
    assert end_of("backbone", "photos") is None
    assert "photos: dropped from mine.pth: fc.weight, fc.bias; heads are trained here" in capsys.readouterr().out
    assert end_of("backbone", "painted_birds") is None
    assert "unless" not in capsys.readouterr().out
    trained_here = load_file("models/backbones/photos.safetensors")
    edit_params(here, {"dataset.photos.classifier": "own"})
    assert end_of("backbone", "photos") is None
    assert "dropped" not in capsys.readouterr().out
    with_head = load_file("models/backbones/photos.safetensors")
    assert with_head.keys() - trained_here.keys() == {"checkpoint_head.weight", "checkpoint_head.bias"}


def test_a_table_with_several_classes_an_image_takes_an_own_classifier(own, here, end_of, edit_params):
    files = [(path, name) for name in CLASSES for path in sorted((here / "data/raw/photos").glob(f"*/{name}/*.png"))]
    rows = [f"{path.relative_to(here / 'data/raw/photos')},{path.parts[-3]},{name}" for path, name in files]
    (here / "data/raw/photos/images.csv").write_text("\n".join(["file,split,labels", *rows, ""]))
    edit_params(here, {"dataset.photos.images": {"kind": "image_table", "path": "photos", "labels": "several", "image_size": 32}})  # fmt: skip
    assert up_to_baseline(end_of) is None
    pixels, labels = pixels_of(here / "data/raw/photos", "test")
    with torch.no_grad():
        right = ((own(pixels) > 0) == torch.nn.functional.one_hot(labels, 3).bool()).all(dim=1)
    assert pd.read_csv("data/evaluation/photos/bl.csv")["accuracy"].item() == right.double().mean().item()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"dataset.painted_birds.classifier": "own"}, "dataset.painted_birds.classifier: own needs images of kind"),
        ({"dataset.photos.backbone.tail": "own_softmax"}, "dataset.photos.backbone.tail: classifier own"),
        ({"dataset.photos.classifier": "trained_here", "dataset.photos.classifier_labels": "x.txt"}, "only for classifier own"),
        ({"dataset.photos.classifier": "mine"}, "dataset.photos.classifier: "),
        ({"dataset.photos.images": {"kind": "image_table", "path": "photos", "labels": "several", "image_size": 32}, "multi_label.datasets": ["photos"]}, "multi_label.datasets: photos has classifier own"),
    ],
)  # fmt: skip
def test_impossible_settings_are_named(changes, part, here, end_of, edit_params):
    edit_params(here, copy.deepcopy(CHANGES) | changes)
    assert part in end_of("settings")
