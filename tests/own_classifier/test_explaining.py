"""The record of `explain`: maps and probabilities computed by hand, the same in any batch, for every method."""

import json
import os
import shutil
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from matplotlib.figure import Figure
from own_classifier.conftest import LABELS, TRANSFORM, trained
from PIL import Image
from torchvision import transforms

import bla
from bla.base.errors import BlaError
from bla.explainers.interface import Card, Explainer, StructuredExplainer
from bla.explainers.registry import explainer_class, explainer_names
from bla.networks.patchwork import patchwork
from bla.own_classifier.explaining import WatchedClassifier, as_method, passes
from bla.own_classifier.photos import read_photos
from bla.own_classifier.planning import SEARCHING
from bla.own_classifier.record import spreadsheet

SMALL = {"patterns": 100, "masks": 20, "images": 4, "epochs": 1, "runs": 1}
"""Settings, of any method, that make it fast."""


def small(name):
    """A method with small settings."""
    known = {field.name for field in fields(bla.with_settings(name).settings)}
    return bla.with_settings(name, **{key: value for key, value in SMALL.items() if key in known})


def features_by_hand(photos, name, model=None):
    """Features `[n, C]` of a photograph, by the model's own layers."""
    model = model or trained()
    with torch.no_grad():
        x = model.body(TRANSFORM(Image.open(photos / name).convert("RGB"))[None])
    return x[0].flatten(1).T, model


@pytest.fixture(scope="module")
def record(own, photos):
    return bla.explain(own, photos, ["cam", "grad_cam", "random"], progress=False)


def test_names_classes_and_shapes(record):
    assert record.names == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png")
    assert record.expected.tolist() == [0, 0, 0, 1, 1, 1]
    assert record.pixels.shape == (6, 48, 80, 3)
    for result in record.results.values():
        assert result.maps.shape == (1, 6, 3, 5)
        assert result.hard.shape == (1, 6, 3, 5)
        assert result.probabilities.shape == (1, 6, 3)
        assert np.isnan(result.spread).all()
    assert (record.results["cam"].hard.sum(axis=(2, 3)) == 2).all()  # 8 of 49, of 15


def test_cam_and_probabilities_by_hand(record, photos):
    for number, name in enumerate(record.names):
        features, model = features_by_hand(photos, name)
        logits = model.head(features.mean(dim=0)).detach()
        assert record.predicted[number] == logits.argmax()
        assert record.probabilities[number] == pytest.approx(logits.softmax(dim=0).numpy(), rel=1e-4)
        cam = (features @ model.head.weight[record.target[number]]).detach()
        assert record.results["cam"].maps[0, number].ravel() == pytest.approx(cam.numpy(), rel=1e-3, abs=1e-4)
        cells = cam.topk(2).indices
        explained = model.head(features[cells].mean(dim=0)).softmax(dim=0).detach()
        assert record.results["cam"].probabilities[0, number] == pytest.approx(explained.numpy(), rel=1e-4)
        assert set(np.flatnonzero(record.results["cam"].hard[0, number])) == set(cells.tolist())


def test_an_image_alone_has_the_same_maps(own, photos, record):
    alone = bla.explain(own, read_photos(own, photos / "dog/1.png"), ["random"], progress=False)
    with_folder = bla.explain(own, [photos / "cat/0.png", photos / "dog/1.png"], ["random"], progress=False)
    assert with_folder.names == ("cat/0.png", "dog/1.png")
    assert np.array_equal(with_folder.results["random"].maps[0, 1], record.results["random"].maps[0, 4])
    assert alone.names == ("1.png",)
    assert alone.expected.tolist() == [1]


def test_targets(own, photos):
    expected = bla.explain(own, photos, ["cam"], target="expected", progress=False)
    assert expected.target.tolist() == [0, 0, 0, 1, 1, 1]
    assert bla.explain(own, photos, ["cam"], target="owl", progress=False).target.tolist() == [2] * 6
    with pytest.raises(BlaError, match="no class cow; its classes are cat, dog, owl"):
        bla.explain(own, photos, ["cam"], target="cow", progress=False)
    with pytest.raises(BlaError, match="image_0: its class is unknown"):
        bla.explain(own, Image.new("RGB", (60, 60)), ["cam"], target="expected", progress=False)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "float", "head that is not linear"])
def test_every_method_explains(kind, sigmoid, photos, request):
    """Maps are finite, on inputs that are not square, with an odd number of cells, and for pixels that are no integers."""
    transform = TRANSFORM
    if kind == "float":
        transform = transforms.Compose([transforms.ToTensor(), transforms.Resize((48, 80))])
    if kind == "head that is not linear":
        own = request.getfixturevalue("normalised")
    else:
        own = bla.wrap(trained(), transform, LABELS, scores="sigmoid" if sigmoid else "softmax")
    cached, methods = bla.extract_features(own, photos, progress=False), []
    repeats = [3] + [1] * (cached.labels.ndim - 1)  # some methods need more than six images
    cached = bla.CachedFeatures(
        cached.features.repeat(3, 1, 1), cached.labels.repeat(repeats), np.tile(cached.pixels, (3, 1, 1, 1))
    )
    for name in bla.method_names():
        method = small(name)
        try:
            if method.explainer.learned:
                methods.append(bla.fit(own, cached, method, runs=2, epochs=1, progress=False))
            else:
                method.explainer(own.classifier, method.settings)
                methods.append(method)
        except BlaError:
            assert kind == "head that is not linear"
            assert name in ("bla", "bla_t", "l2x_f") or method.explainer.linear_head
    record = bla.explain(own, photos, methods, progress=False)
    for result in record.results.values():
        assert result.maps.shape[1] == 6
        assert np.isfinite(result.maps).all()
        assert np.isfinite(result.probabilities).all()
        if not sigmoid or kind == "head that is not linear":
            assert result.probabilities.sum(axis=2) == pytest.approx(1)
    assert len(record.results) >= 8


def test_forward_passes_are_counted_without_the_backbone(own, photos):
    image = own.preparation.pixels(Image.open(photos / "cat/0.png").convert("RGB"))[None]
    for method in (
        "cam",
        "grad_cam",
        "score_cam",
        bla.with_settings("lime", patterns=130),
        bla.with_settings("rise", masks=37),
    ):
        chosen = as_method(method)
        before = own.classifier.forwards
        chosen.explainer(own.classifier, chosen.settings).explain(image, torch.tensor([0]), torch.tensor([0]))
        assert passes(own, chosen) == own.classifier.forwards - before


def test_passes_of_an_efficientnet_are_counted_and_watched_though_its_first_layers_are_pieced_together(monkeypatch):
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_050", num_classes=3).eval()
    own = bla.wrap(model, bla.Transform(size=96, resize=96), LABELS)
    image, lime = (
        own.preparation.pixels(Image.new("RGB", (96, 96), (200, 30, 90)))[None],
        bla.with_settings("lime", patterns=130),
    )
    assert patchwork(own.classifier.extractor, (96, 96), own.grid)
    seen, through = [], []
    watched = WatchedClassifier(own.classifier, seen.append)
    lime.explainer(watched, lime.settings).explain(image, torch.tensor([0]), torch.tensor([0]))
    assert sum(seen) == watched.forwards == 130
    feature_map = own.classifier.extractor.feature_map
    monkeypatch.setattr(own.classifier.extractor, "feature_map", lambda x: through.append(len(x)) or feature_map(x))
    assert passes(own, lime) == 130
    assert through == [1]


def test_a_plan_multiplies_passes_by_seconds(own):
    lime, cam = bla.plan(own, [bla.with_settings("lime", patterns=500), "cam"])
    assert (lime.method, lime.passes, cam.passes) == ("lime", 500, 1)
    assert lime.seconds > 0


def test_methods_that_search_are_planned_as_they_were_measured(own):
    table = pd.read_csv(Path(__file__).parents[2] / "reports/tables/faithfulness.csv")
    means = table[table["dataset"] == "painted_birds"].pivot(index="method", columns="metric", values="mean")
    (one,) = bla.plan(own, ["i_gos"])
    assert one.passes == SEARCHING["i_gos"]
    for name, count in SEARCHING.items():
        assert count == pytest.approx(means.loc[name, "forwards"] + 2 * means.loc[name, "backwards"], abs=0.5)


CARD = Card(sentence="s", source="s", needs="n", cost="c", proof="p")


@dataclass(frozen=True)
class Power:
    power: float = 1.0


class Mine(Explainer):
    title, card, Settings = "mine", CARD, Power

    def explain(self, images, targets, seeds):
        return self.classifier.features(images).abs().mean(dim=1) ** self.settings.power


class Sets(StructuredExplainer):
    title, card = "sets", CARD

    def explain_with_sets(self, images, targets, seeds):
        maps = self.classifier.features(images)[:, 0]
        return maps, [[[1, 4, 7], [2]] for _ in images]


class Wrong(Explainer):
    title, card = "wrong", CARD

    def explain(self, images, targets, seeds):
        return self.classifier.features(images)


class Broken(Explainer):
    title, card, value = "broken", CARD, np.nan

    def explain(self, images, targets, seeds):
        """One cell of each image of class 1 is not finite."""
        maps = self.classifier.features(images)[:, 0]
        maps[targets == 1, 1, 2] = self.value
        return maps


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_named_with_its_photograph(value, own, photos, monkeypatch):
    monkeypatch.setattr(Broken, "value", value)
    with pytest.raises(BlaError, match=r"^Broken: the map of dog/0\.png is not finite; .* with check_explainer$"):
        bla.explain(own, photos, [Broken], target="expected", progress=False)


def test_methods_of_ones_own(own, photos):
    record = bla.explain(own, photos, [bla.with_settings(Mine, power=2), Sets], progress=False)
    plain = bla.explain(own, photos, [Mine], progress=False)
    assert record.results["Mine"].maps == pytest.approx(plain.results["Mine"].maps ** 2)
    assert np.flatnonzero(record.results["Sets"].hard[0, 3]).tolist() == [1, 4, 7]
    with pytest.raises(BlaError, match="Wrong: maps have shape"):
        bla.explain(own, photos, [Wrong], progress=False)
    with pytest.raises(BlaError, match="Mine: power"):
        bla.with_settings(Mine, power="large")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["cma"], "no explanation method cma"),
        (["bla_ph"], "bla_ph must be fitted"),
        (["cam", "cam"], "cam is listed twice"),
    ],
)
def test_wrong_methods(own, photos, methods, message):
    with pytest.raises(BlaError, match=message):
        bla.explain(own, photos, methods, progress=False)


def test_a_method_that_does_not_suit_the_classifier(normalised, photos):
    with pytest.raises(BlaError, match=r"cam: this classifier has no linear head.*leave it out"):
        bla.explain(normalised, photos, ["cam"], progress=False)


def test_wrong_images(own, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    for images, message in ((tmp_path / "empty", "no .*image in this folder"), (tmp_path / "bad.jpg", r"bad.jpg"), ([], "no images"), (tmp_path / "x.jpg", "no such image")):  # fmt: skip
        with pytest.raises(BlaError, match=message):
            bla.explain(own, images, ["cam"], progress=False)


@pytest.mark.parametrize("images", [np.zeros((48, 80, 3), np.uint8), torch.zeros(1, 3, 48, 80), None, 3, [b"bytes"]])
def test_what_is_no_image_is_one_message(own, images):
    with pytest.raises(BlaError, match=r"images must be files, folders or PIL images, not \w+; PIL's Image.fromarray"):
        bla.explain(own, images, ["cam"], progress=False)


def test_paths_with_dots_stay_within_the_folder_of_results(own, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos / "cat")
    record = bla.explain(own, ["0.png", "../dog/0.png"], ["cam"], progress=False)
    assert record.names == ("cat/0.png", "dog/0.png")
    assert record.expected.tolist() == [0, 1]
    record.save(tmp_path / "out")
    assert (tmp_path / "out/maps/cam/dog/0.png.npy").is_file()


def test_a_file_name_that_is_not_utf_8_is_one_message(own, photos, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(photos / "cat/0.png", tmp_path / name)
    with pytest.raises(BlaError, match=r"caf\\udce9.png.*rename"):
        bla.explain(own, tmp_path, ["cam"], progress=False)


def test_the_saved_folder_is_complete_and_its_manifest_lists_it(record, tmp_path):
    folder = record.save(tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {manifest["table"], "manifest.json", *manifest["contact_sheets"]}
    listed |= {name for image in manifest["images"] for files in image["files"].values() for name in files.values()}
    listed |= {image["photograph"] for image in manifest["images"]} | {manifest["probabilities"]}
    listed |= {method["probabilities"] for method in manifest["methods"].values()}
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert manifest["schema"] == 2
    assert manifest["labels"] == list(LABELS)
    assert manifest["methods"]["cam"] == {
        "title": "CAM", "settings": {}, "control": False, "runs": 1, "map": [3, 5], "probabilities": "probabilities/cam.npy",
    }  # fmt: skip
    assert {"bla", "torch", "timm", "torchvision", "numpy"} == set(manifest["versions"])
    assert np.array_equal(np.load(folder / "maps/cam/dog/0.png.npy"), record.results["cam"].maps[0, 3])
    assert np.array(Image.open(folder / "overlays/cam/dog/0.png.png")).shape == (48, 80, 3)
    table = pd.read_csv(folder / "explanations.csv")
    assert len(table) == 18
    row = table[(table["image"] == "dog/0.png") & (table["method"] == "cam")].iloc[0]
    assert row["probability"] == pytest.approx(record.probabilities[3].max())
    assert row["expected"] == "dog"
    with pytest.raises(BlaError, match="not an empty folder"):
        record.save(folder)


@pytest.mark.parametrize(
    "label", ["$1_to_$5", r"$\frac$", "中文类别名", "=cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "＝1", "<b>&amp;"]
)
def test_odd_names_stand_in_pictures_and_tables(label, own, photos, tmp_path):
    """Not as formulas: of mathematics in pictures, of a spreadsheet in tables; nor as boxes."""
    odd = replace(own, labels=(label, "dog"))
    (tmp_path / label.replace("/", "")).mkdir()
    name = label.replace("/", "")
    shutil.copy(photos / "cat/0.png", tmp_path / name / f"{name}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of missing letters
        record = bla.explain(odd, tmp_path / name, ["cam"], target=label, progress=False)
        folder = record.save(tmp_path / "out")
        (caption,) = [axis.get_xlabel() for axis in record.figure().axes if axis.get_xlabel()]
    assert caption.replace("\n", " ").startswith(
        "photograph 0: class 0 " if label in ("中文类别名", "＝1") else name[:5]
    )
    table = pd.read_csv(folder / "explanations.csv", dtype=str, keep_default_na=False)
    formula = label[0] in "=@-＝"
    assert set(table["target"]) == {f"'{label}" if formula else label}
    assert table["image"].str.startswith("'").all() == formula
    scores = pd.DataFrame({"method": [label], "image": [f"{name}.png"], "value": [-0.5]})
    assert spreadsheet(scores).splitlines()[1].startswith("'" if formula else label[0])
    assert spreadsheet(scores.set_index("method"), index=True).splitlines()[1].endswith(",-0.5")


def test_a_folder_whose_saving_failed_has_no_manifest(record, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(type(record), "_save_sheets", fail)
    with pytest.raises(OSError, match="no space"):
        record.save(tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "out").rglob("*.part"))


def test_figures_are_returned_and_settings_of_matplotlib_stay(record):
    before = dict(matplotlib.rcParams)
    figure = record.figure([1, 4])
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2 * 4
    assert dict(matplotlib.rcParams) == before
    assert record.overlay("cam", 0).dtype == np.uint8


def test_every_method_has_a_card():
    for name in explainer_names():
        assert explainer_class(name).card.sentence


@pytest.mark.parametrize("call", [lambda model: bla.explain(model, [], "cam"), lambda model: bla.fit(model, [], "bla_ph"), lambda model: bla.extract_features(model, []), lambda model: bla.score(model, None)])  # fmt: skip
@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), None, "resnet18"])
def test_a_model_that_was_not_wrapped_is_named(call, model):
    with pytest.raises(BlaError, match=rf"needs what bla\.wrap\(.*\) returns, not a {type(model).__name__}"):
        call(model)
