"""Learned methods on a wrapped classifier: the same from every kind of data, the paper's where the head is linear."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from own_classifier.conftest import LABELS, TRANSFORM, trained
from PIL import Image
from pydantic import TypeAdapter
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

import bla
from bla.base.errors import BlaError
from bla.base.specs import Explaining, Schedule
from bla.explainers.interface import TrainingData
from bla.explainers.learned.attention import Attention
from bla.own_classifier.methods import VARIANTS
from bla.own_classifier.modules import FrozenTailAttention


@pytest.fixture(scope="module")
def cached(own, photos):
    return bla.extract_features(own, photos, progress=False)


def same(one, other):
    return one.state.keys() == other.state.keys() and all(torch.equal(one.state[k], other.state[k]) for k in one.state)


def test_the_variants_are_those_of_the_pipeline():
    with open("params.yaml") as file:  # noqa: PTH123
        params = yaml.safe_load(file)["variant"]
    for name, variant in VARIANTS.items():
        assert TypeAdapter(Explaining).validate_python(params[name]) == variant


def test_a_folder_pairs_and_a_loader_give_the_same_features(own, photos, cached):
    files = sorted(photos.rglob("*.png"))
    pairs = bla.extract_features(own, [(path, path.parent.name) for path in files], progress=False)
    dataset = [(TRANSFORM(Image.open(path).convert("RGB")), LABELS.index(path.parent.name)) for path in files]
    loaded = bla.extract_features(own, torch.utils.data.DataLoader(dataset, batch_size=4), progress=False)
    assert cached.features.shape == (6, 15, 8)
    for other in (pairs, loaded):
        assert torch.equal(other.labels, cached.labels)
        assert torch.allclose(other.features.float(), cached.features.float(), atol=1e-3)
        assert np.array_equal(other.pixels, cached.pixels)
    fitted = [bla.fit(own, data, runs=1, epochs=1, progress=False) for data in (cached, photos, str(photos))]
    assert same(fitted[0], fitted[1])
    assert same(fitted[0], fitted[2])


@pytest.mark.parametrize("threshold_factor", [0, 0.5])
def test_through_the_layers_or_on_the_linear_head_training_is_the_same(own, cached, threshold_factor):
    """With one batch an epoch and no dropout, two implementations take the same steps."""
    method = bla.with_settings("bla_ph", threshold_factor=threshold_factor)
    schedule = Schedule(batch_size=6, epochs=5, learning_rate=0.05, adam_epsilon=1e-7, dropout=0)
    data = TrainingData(cached.features[None], own.grid, None, cached.labels, schedule, own.classifier.device)
    states = [kind(own.classifier, method.settings).fit(data, [4]) for kind in (Attention, FrozenTailAttention)]
    for name in ("module.weight", "module.bias", "losses"):
        assert torch.allclose(states[0][name], states[1][name], atol=2e-4), name
    objectives = []
    for state, kind in zip(states, (Attention, FrozenTailAttention), strict=True):
        objectives.append(kind(own.classifier, method.settings).load(state).objective(data, [0]))
    assert torch.allclose(objectives[0], objectives[1], atol=1e-3)


@pytest.mark.parametrize("name", ["bla_ph", "bla_t", "l2x_f"])
def test_probabilities_with_the_explained_cells_by_hand(own, photos, cached, name):
    method = bla.with_settings(name, **({"k": 4} if name == "l2x_f" else {}))
    fitted = bla.fit(own, cached, method, runs=3, epochs=4, learning_rate=0.05, progress=False)
    result = bla.explain(own, photos, [fitted], progress=False).results[name]
    assert result.maps.shape == (3, 6, 3, 5)
    assert result.spread == pytest.approx(result.maps.std(axis=0, ddof=1))
    model = trained()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        with torch.no_grad():
            features = model.body(TRANSFORM(Image.open(path).convert("RGB"))[None])[0].flatten(1).T
        for run in range(3):
            scores = features @ fitted.state["module.weight"][run] + fitted.state["module.bias"][run]
            bounded = scores if name == "l2x_f" else scores.clamp(max=0)
            cells = bounded.topk(4).indices if name == "l2x_f" else (bounded == bounded.max()).nonzero()[:, 0]
            assert set(np.flatnonzero(result.hard[run, number])) == set(cells.tolist())
            pooled = features[cells].mean(dim=0)
            frozen = name == "bla_ph"
            weight = model.head.weight if frozen else fitted.state["head.weight"][run]
            bias = model.head.bias if frozen else fitted.state["head.bias"][run]
            expected = (weight @ pooled + bias).softmax(dim=0).detach().numpy()
            assert result.probabilities[run, number] == pytest.approx(expected, abs=1e-4)


def test_a_frozen_head_is_the_classifiers_and_a_trained_one_is_not(own, cached):
    head = trained().head.weight
    assert torch.equal(bla.fit(own, cached, "bla_ph", runs=1, epochs=2, progress=False).state["head.weight"][0], head)
    assert not torch.equal(
        bla.fit(own, cached, "bla_t", runs=1, epochs=2, progress=False).state["head.weight"][0], head
    )


def test_a_head_that_is_not_linear(normalised, photos):
    fitted = bla.fit(normalised, photos, "bla_ph", runs=2, epochs=3, progress=False)
    assert set(fitted.state) == {"module.weight", "module.bias", "losses"}
    assert (fitted.state["losses"][:, -1] < fitted.state["losses"][:, 0]).all()
    record = bla.explain(normalised, photos, [fitted], progress=False)
    assert record.results["bla_ph"].maps.sum(axis=(2, 3)) == pytest.approx(1)
    with pytest.raises(BlaError, match=r"head cannot be trained further; use bla_ph"):
        bla.fit(normalised, photos, "bla_t", progress=False)


def test_sigmoid_scores_train_on_binary_cross_entropy(photos):
    own = bla.wrap(trained(), TRANSFORM, LABELS, scores="sigmoid")
    cached = bla.extract_features(own, photos, progress=False)
    assert cached.labels.tolist() == [[True, False, False]] * 3 + [[False, True, False]] * 3
    method = bla.with_settings("bla_ph", threshold_factor=0)
    losses = bla.fit(own, cached, method, runs=1, epochs=1, batch_size=6, learning_rate=1e-9, dropout=0, progress=False).state["losses"]  # fmt: skip
    # Untrained weights are nearly equal: the loss is that of the classifier itself.
    logits = trained().head(cached.features.float().mean(dim=1))
    expected = binary_cross_entropy_with_logits(logits, cached.labels.float(), reduction="none").sum(dim=1).mean()
    assert losses.item() == pytest.approx(expected.item(), abs=0.05)
    softmax = cross_entropy(logits, cached.labels.float().argmax(dim=1))
    assert abs(losses.item() - softmax.item()) > 0.1


def test_a_file_gives_the_same_maps_and_belongs_to_its_classifier(own, normalised, photos, cached, tmp_path):
    fitted = bla.fit(own, cached, bla.with_settings("bla_ph", temperature=0.3), runs=2, epochs=1, progress=False)
    fitted.save(tmp_path / "m.safetensors")
    loaded = bla.load_fitted(tmp_path / "m.safetensors")
    assert same(loaded, fitted)
    assert loaded.method == fitted.method
    maps = [bla.explain(own, photos, [one], progress=False).results["bla_ph"].maps for one in (fitted, loaded)]
    assert maps[0] == pytest.approx(maps[1], rel=1e-5)  # rounding depends on where tensors lie in memory
    other = bla.wrap(trained(), bla.Transform(size=(48, 80), resize=66), LABELS)
    assert other.fingerprint == own.fingerprint  # the same network on the same kind of input
    sigmoid = bla.wrap(trained(), TRANSFORM, LABELS, scores="sigmoid")  # the same weights, other probabilities
    for wrong in (normalised, bla.wrap(trained(), bla.Transform(size=(48, 64)), LABELS), sigmoid):
        with pytest.raises(BlaError, match="fitted to another classifier"):
            bla.explain(wrong, photos, [loaded], progress=False)


@pytest.mark.parametrize(
    ("name", "settings", "title"),
    [
        ("l_cam_img", {"images": 4}, "L-CAM-Img (short training)"),
        ("l_cam_img", {"images": 6}, "L-CAM-Img"),
        ("explainer_network", {"images": 5}, "Explainer (short training)"),
        ("explainer_network", {"images": 7}, "Explainer"),
        ("l_cam_fm", {}, "L-CAM-Fm"),
    ],
)
def test_the_title_says_whether_all_six_images_were_used(own, photos, cached, tmp_path, name, settings, title):
    method = bla.with_settings(name, epochs=1, **settings)
    bla.fit(own, cached, method, runs=2, progress=False).save(tmp_path / "m.safetensors")
    record = bla.explain(own, photos, [bla.load_fitted(tmp_path / "m.safetensors")], progress=False)
    assert record.results[name].title == title


def test_files_that_are_no_fitted_methods(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for name in ("weights", "bad", "missing"):
        with pytest.raises(BlaError, match=rf"{name}.safetensors.*run bla fit"):
            bla.load_fitted(tmp_path / f"{name}.safetensors")


def loader(*batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=None)


IMAGES = torch.zeros(2, 3, 48, 80)
WRONG = {
    "size": (lambda cached: loader((torch.zeros(2, 3, 48, 64), torch.tensor([0, 1]))), "inputs of .3, 48, 64."),
    "channels last": (lambda cached: loader((torch.zeros(2, 48, 80, 3), torch.tensor([0, 1]))), "inputs of"),
    "no labels": (lambda cached: loader(IMAGES), "pairs of tensors"),
    "empty": (lambda cached: loader(), "empty"),
    "label 3": (lambda cached: loader((IMAGES, torch.tensor([0, 3]))), "numbers from 0 to 2"),
    "label -1": (lambda cached: loader((IMAGES, torch.tensor([0, -1]))), "numbers from 0 to 2"),
    "real labels": (lambda cached: loader((IMAGES, torch.tensor([0.0, 1.0]))), "numbers from 0 to 2"),
    "two columns": (lambda cached: loader((IMAGES, torch.zeros(2, 2))), "numbers from 0 to 2"),
    "cells": (lambda cached: bla.CachedFeatures(cached.features[:, :9], cached.labels), "images, 15, channels"),
    "maps": (lambda cached: bla.CachedFeatures(cached.features.unflatten(1, (3, 5)), cached.labels), "images, 15"),
    "too few labels": (lambda cached: bla.CachedFeatures(cached.features, cached.labels[:3]), "images, 15"),
    "soft labels": (lambda cached: loader((IMAGES, torch.full((2, 3), 0.3))), "numbers from 0 to 2; several an image need sigmoid"),
    "several, softmax": (lambda cached: loader((IMAGES, torch.ones(2, 3))), "numbers from 0 to 2; several an image need sigmoid"),
    "other features": (lambda cached: replace(cached, fingerprint="0123"), "of another classifier.*extract them again"),
    "nothing": (lambda cached: [(None, 0)], "images must be files, folders or PIL images, not NoneType"),
    "no folder": (lambda cached: "nowhere", "nowhere: no such folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data(own, cached, name):
    make, message = WRONG[name]
    with pytest.raises(BlaError, match=message):
        bla.fit(own, make(cached), progress=False)


@pytest.mark.parametrize(
    "setting",
    [{"runs": 0}, {"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0}, {"learning_rate": float("nan")}, {"dropout": 1}],
)  # fmt: skip
def test_a_schedule_that_trains_nothing_is_refused(own, cached, setting):
    with pytest.raises(BlaError, match="at least 1, learning_rate above 0, and dropout from 0"):
        bla.fit(own, cached, progress=False, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"learning_rate": 1e300}, "learning_rate: Input should be less than or equal to 10, not 1e+300"),
        ({"learning_rate": 10.1}, "learning_rate: Input should be less than or equal to 10, not 10.1"),
        ({"epochs": 10_001}, "epochs: Input should be less than or equal to 10000, not 10001"),
        ({"epochs": 2.5}, "epochs: Input should be a valid integer, got a number with a fractional part, not 2.5"),
        ({"batch_size": 10_000_001}, "batch_size: Input should be less than or equal to 10000000, not 10000001"),
        ({"runs": 1001}, "runs: at most 1,000, not 1,001"),
    ],
    ids=str,
)
def test_settings_of_a_fit_have_the_bounds_of_the_pipelines_settings(own, cached, setting, message):
    with pytest.raises(BlaError) as error:
        bla.fit(own, cached, progress=False, **setting)
    assert str(error.value) == f"fit: {message}"


@pytest.mark.parametrize(
    "setting", [{"epochs": "3"}, {"runs": 2.5}, {"learning_rate": None}, {"batch_size": [8]}], ids=str
)
def test_settings_of_a_fit_are_numbers(own, cached, setting):
    with pytest.raises(BlaError, match=r"^runs must be a whole number; epochs, .* must be numbers$"):
        bla.fit(own, cached, progress=False, **setting)


def test_training_and_test_photographs_are_not_mixed(own, photos, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / split)
    with pytest.raises(BlaError, match=r"test/cat and train/cat are of one class; name the folder with the training"):
        bla.extract_features(own, tmp_path, progress=False)
    assert len(bla.extract_features(own, tmp_path / "train", progress=False).labels) == 6


def test_features_of_another_classifier_are_refused(own, normalised, photos, cached):
    assert cached.fingerprint == own.fingerprint
    with pytest.raises(BlaError, match="cached features are those of another classifier"):
        bla.fit(normalised, cached, progress=False)
    own_features = bla.CachedFeatures(cached.features, cached.labels)  # from a file of the user, say
    assert same(*(bla.fit(own, one, runs=1, epochs=1, progress=False) for one in (cached, own_features)))


def test_folders_that_are_no_classes(own, photos, tmp_path):
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow/1.png").write_bytes((photos / "cat/0.png").read_bytes())
    with pytest.raises(BlaError, match=r"'cow' are not classes of the classifier \(cat, dog, owl\)"):
        bla.fit(own, tmp_path, progress=False)
    with pytest.raises(BlaError, match="no class cow"):
        bla.extract_features(own, [(photos / "cat/0.png", "cow")], progress=False)


@pytest.mark.parametrize(
    ("label", "folder"), [("é", "e\u0301"), ("A\u030a", "Å"), ("ñu", "n\u0303u"), ("각", "\u1100\u1161\u11a8")]
)
def test_a_folder_may_spell_its_class_with_accents_as_characters_of_their_own(label, folder, photos, tmp_path):
    own = bla.wrap(trained(), TRANSFORM, ("cat", label, "e"))
    shutil.copytree(photos / "cat", tmp_path / "cat")
    shutil.copytree(photos / "dog", tmp_path / folder)
    assert bla.extract_features(own, tmp_path, progress=False).labels.tolist() == [0] * 3 + [1] * 3
    record = bla.explain(own, tmp_path, ["random"], target=folder, progress=False)
    assert record.expected.tolist() == [0] * 3 + [1] * 3
    assert set(record.target) == {1}


def test_of_two_labels_that_look_the_same_the_one_of_the_same_spelling_counts():
    own = bla.wrap(trained(), TRANSFORM, ("é", "e\u0301", "cat"))
    assert [own.find_label(name) for name in ("é", "e\u0301", "cat", "cow")] == [0, 1, 2, -1]


def test_methods_that_are_not_learned(own, cached):
    with pytest.raises(BlaError, match="cam needs no fitting"):
        bla.fit(own, cached, "cam", progress=False)


def test_multi_hot_labels_of_a_loader(photos):
    own = bla.wrap(trained(), TRANSFORM, LABELS, scores="sigmoid")
    for soft in (torch.full((2, 3), 0.3), torch.tensor([[0, 1, 2], [0, 0, 1]])):  # bool() would make ones of them
        with pytest.raises(BlaError, match=r"numbers from 0 to 2, or \[images, 3\] of zeros and ones"):
            bla.extract_features(own, loader((IMAGES, soft)), progress=False)
    hot = one_hot(torch.tensor([0, 1]), 3)
    assert bla.extract_features(own, loader((IMAGES, hot)), progress=False).labels.dtype == torch.bool


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", [Attention, FrozenTailAttention])
def test_features_that_are_not_finite_are_named_and_not_the_learning_rate(kind, value, own, cached):
    features, method = cached.features.clone(), bla.with_settings("bla_ph")
    features[2, 1, 0] = value
    schedule = Schedule(batch_size=4, epochs=1, learning_rate=0.01, adam_epsilon=1e-7, dropout=0)
    data = TrainingData(features[None], own.grid, None, cached.labels, schedule, torch.device("cpu"))
    with pytest.raises(BlaError, match=r"^the features of 1 of \d+ training images .* numbers 2, "):
        kind(own.classifier, method.settings).fit(data, [4])
