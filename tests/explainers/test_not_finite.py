"""Class scores that are not finite are one message, of whichever method."""

import math

import pytest
import torch
from small_networks import Small, random_backbone
from torch import nn

from bla.base.errors import BlaError
from bla.explainers.interface import Explainer, explain_in_batches, require_finite_maps
from bla.explainers.occlusion import occluded_logits, patch_masks
from bla.explainers.registry import explainer_class, explainer_names
from bla.networks.classifier import Classifier

MASKS = {"size": 4, "iterations": 2, "points": 3}
METHODS = {"lime": {"patterns": 100}, "rise": {"masks": 20}, "score_cam": {}, "sag": {"beam": 1, "successors": 2}}
METHODS |= {"i_gos": MASKS, "i_gos_pp": MASKS}
MESSAGE = r"^the classifier's class scores or their gradients are not finite; check its weights$"
TARGET, OTHER = 1, 0


def explained(name, classifier, images, targets, seeds):
    kind = explainer_class(name)
    return kind(classifier, kind.Settings(**METHODS[name]) if METHODS[name] else None).explain(images, targets, seeds)


def with_bias(random_head, label, value, scores="softmax"):
    head = random_head(1, 6)
    head.bias[0, label] = value
    return Classifier(Small(), head, scores).eval()


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("label", [TARGET, OTHER])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", METHODS)
def test_class_scores_that_are_not_finite_are_one_message(name, value, label, scores, random_head, images, seeds):
    classifier = with_bias(random_head, label, value, scores)
    with pytest.raises(BlaError, match=MESSAGE):
        explained(name, classifier, images, torch.full((3,), TARGET), seeds)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("value", [1e4, -1e4, 3e38])
@pytest.mark.parametrize("name", METHODS)
def test_large_class_scores_are_explained(name, value, scores, random_head, images, seeds):
    classifier = with_bias(random_head, OTHER, value, scores)
    assert explained(name, classifier, images, torch.full((3,), TARGET), seeds).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_not_a_number_are_the_same_message(name, random_head, images, targets, seeds):
    classifier = Classifier(Small(), random_head(1, 6)).eval()
    classifier.extractor.convolution.weight[:] = torch.nan  # so that no channel varies
    with pytest.raises(BlaError, match=MESSAGE):
        explained(name, classifier, images, targets, seeds)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_no_image_with_a_score_that_is_not_finite_is_yielded(batch_size, random_head, images):
    class BlackIsInfinite(nn.Module):
        def forward(self, features):
            """Scores `[1, B, 3]`; -inf where the image is black."""
            return random_scores(features).masked_fill((features == black).flatten(1).all(dim=1)[:, None], -torch.inf)

    random_scores = Classifier(Small(), random_head(1, 6)).tail
    black = Small().feature_map(torch.zeros(1, *images.shape[1:]))
    patterns = torch.ones(len(images), 4, 16, dtype=torch.bool)
    patterns[1, 2] = False  # one mask of the second image
    classifier = Classifier(Small(), BlackIsInfinite()).eval()
    masks = patch_masks(patterns, images.shape[1:3], (4, 4))
    yielded = []
    with pytest.raises(BlaError, match=MESSAGE):
        yielded.extend(occluded_logits(classifier, images, masks, 4, batch_size=batch_size))
    assert len(yielded) <= 1


WITHOUT_A_CLASSIFIER = {"random", "constant", "centre", "edges", "explainer_network"}
EVERY = [f"attention {variant}" if variant else name for name in explainer_names() for variant in (("l2x_f", "bla_t") if name == "attention" else ("",))]  # fmt: skip
NOT_FINITE = r"the classifier's (class scores or their gradients|features) are not finite; check its weights$"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", EVERY)
def test_every_method_that_asks_the_classifier_refuses_a_weight_that_is_not_finite(
    name, value, method, random_head, images, targets, seeds
):
    extractor = random_backbone()
    next(module for module in extractor.modules() if isinstance(module, nn.Conv2d)).weight[0, 0, 0, 0] = value
    explainer = method(name, Classifier(extractor, random_head(1, 96)).eval())
    if name in WITHOUT_A_CLASSIFIER:
        assert explain_in_batches(explainer, images, targets, seeds)[0].isfinite().all()
    else:
        with pytest.raises(BlaError, match=NOT_FINITE):
            explain_in_batches(explainer, images, targets, seeds)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["cam", "grad_cam", "grad_cam_pp"])
def test_a_head_that_is_not_finite_gives_no_map(name, value, method, random_head, images, seeds):
    head = random_head(1, 6)
    head.weight[0, TARGET, 0] = value
    explainer = method(name, Classifier(Small(), head).eval())
    with pytest.raises(
        BlaError,
        match=r"not finite; check (its weights|the classifier's weights, and the method with check_explainer)$",
    ):
        explain_in_batches(explainer, images, torch.full((3,), TARGET), seeds)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_named_with_its_method_and_image(value, monkeypatch, small, images, targets, seeds):
    class Broken(Explainer):
        title = "Broken"

        def explain(self, images, targets, seeds):
            """Maps of 2 x 2 cells; one cell of the image with the seed 7 is not finite."""
            maps = torch.ones(len(images), 2, 2)
            maps[seeds == 7, 1, 0] = value
            return maps

    message = (
        r"^Broken: the map of image 2 of those explained \(counted from 0\) is not finite; "
        "check the classifier's weights, and the method with check_explainer$"
    )
    for at_once in (1, 2, 3):
        monkeypatch.setattr("bla.explainers.interface.batch_size_for", lambda device, size, n=at_once: n)
        with pytest.raises(BlaError, match=message):
            explain_in_batches(Broken(small), images, targets, seeds)
        assert len(explain_in_batches(Broken(small), images[:2], targets[:2], seeds[:2])[0]) == 2
    runs = torch.ones(2, 3, 2, 2)
    require_finite_maps(Broken(small), runs)
    runs[1, 2, 0, 0] = value
    with pytest.raises(BlaError, match=message):
        require_finite_maps(Broken(small), runs)
