"""Masks of several classes an image: merging, controls, tables and published values."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from small_networks import Small, random_head

from bla.base.specs import Backbone, Coco, PascalVoc
from bla.experiments.related_methods.multi_label.experiment import (
    Subjects,
    control_masks,
    measure,
    merged,
    over_runs,
    scaled,
)
from bla.experiments.related_methods.multi_label.figures import mask_pictures, specificity_matrices
from bla.experiments.related_methods.multi_label.published import published
from bla.experiments.related_methods.multi_label.tables import (
    METRICS,
    comparisons,
    means,
    precision_by_class,
    specificity_rows,
)
from bla.networks.classifier import Classifier

VOC, VGG = PascalVoc(kind="voc_2007", image_size=224), Backbone(architecture="torchvision/vgg16", weights="w", normalisation="imagenet")  # fmt: skip
PRESENT = np.array([[True, True, False], [False, False, False], [False, False, True]])


@pytest.fixture(scope="module")
def subjects():
    masks = np.zeros((3, 3, 64, 64), bool)
    masks[0, 0, :20, :20] = masks[0, 1, 30:50, 30:50] = masks[2, 2, 10:30, 40:60] = True
    images = torch.randint(0, 256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Subjects(images, PRESENT, masks, True)


@pytest.fixture(scope="module")
def classifier():
    return Classifier(Small(), random_head(1, 6), "sigmoid").eval()


def test_the_masks_of_the_classes_that_are_present_are_merged():
    masks = np.arange(12.0).reshape(3, 2, 2)[None].repeat(3, axis=0) / 12
    found = merged(masks, PRESENT)
    np.testing.assert_array_equal(found[0], masks[0, 1])
    np.testing.assert_array_equal(found[1], np.zeros((2, 2)))
    np.testing.assert_array_equal(found[2], masks[2, 2])


def test_maps_are_scaled_and_constant_maps_are_empty():
    maps = np.array([[[-1.0, 0], [1, 3]], [[7, 7], [7, 7]]])
    np.testing.assert_array_equal(scaled(maps), [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]])


def test_the_perfect_control_is_perfect_and_the_constants_cover_what_they_say(subjects, classifier):
    controls = control_masks(subjects)
    assert list(controls) == ["0", "0.5", "1", "perfect"]
    values = {name: measure(classifier, subjects, masks) for name, masks in controls.items()}
    for name in ("f1", "iou", "soft_accuracy", "auc", "object_coverage", "boundary_f"):
        np.testing.assert_array_equal(values["perfect"][name][[0, 2]], [1, 1])
        assert np.isnan(values["perfect"][name][1])  # no object
    assert values["perfect"]["background_coverage"][0] == 0
    for name, area in (("0", 0), ("0.5", 0.5), ("1", 1)):
        assert values[name]["area"].tolist() == [area, 0, area]  # without a class there is no mask
        assert values[name]["object_coverage"][0] == area


def test_one_mask_of_all_objects_serves_every_class(subjects):
    union = replace(subjects, masks=subjects.masks.any(axis=1, keepdims=True), of_classes=False)
    perfect = control_masks(union)["perfect"]
    assert perfect.shape == (3, 3, 64, 64)
    np.testing.assert_array_equal(perfect[0, 0], perfect[0, 2])
    np.testing.assert_array_equal(merged(perfect, PRESENT)[0], subjects.objects[0])
    assert "perfect" not in control_masks(replace(subjects, masks=None))


def test_without_masks_only_the_classifier_is_asked(subjects, classifier):
    found = measure(classifier, replace(subjects, masks=None), np.ones((3, 3, 64, 64)))
    assert found.keys() == {"saliency", "area", "sparsity", "hidden_entropy", "classes_f1"}
    shown = classifier(subjects.images)[0].double().softmax(dim=1).numpy()
    assert found["sparsity"][0] == pytest.approx((shown[0] ** 2).sum(), rel=1e-5)
    assert found["saliency"][0] == pytest.approx(-np.log(shown[0, :2].sum()), rel=1e-5)


def test_means_leave_out_images_without_a_value_and_count_the_others():
    values = over_runs({0: {"f1": np.array([0.2, np.nan, 0.4])}, 1: {"f1": np.array([0.4, np.nan, 0.6])}})
    (row,) = means("a", "A", values, 2).to_dict("records")
    assert (row["mean"], row["n"], row["n_runs"], row["better"]) == (pytest.approx(0.4), 2, 2, "higher")
    assert row["standard_error"] == pytest.approx(0.1)  # of .3 and .5
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_average_precision_is_a_mean_over_runs():
    labels = np.array([[True, False], [False, False], [True, False]])
    right, wrong = np.array([[3.0, 0], [1, 0], [2, 0]]), np.array([[1.0, 0], [3, 0], [2, 0]])
    table = precision_by_class(np.stack([right, wrong]), labels, ["a", "b"]).set_index("class")
    assert table.loc["a", "average_precision"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert np.isnan(table.loc["b", "average_precision"])
    assert table["n_test"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("images", "backbone", "expected"),
    [
        (VOC, VGG, [70.52, 62.92, None]),
        (VOC, replace(VGG, architecture="vgg16.tv_in1k"), [70.52, 62.92, None]),
        (VOC, replace(VGG, architecture="torchvision/resnet50"), [None, None, None]),
        (VOC, replace(VGG, architecture="torchvision/vgg16_bn"), [None, None, None]),
        (replace(VOC, validation_images=100), VGG, [None, None, None]),
        (Coco(kind="coco_2014", image_size=224), VGG, [None, None, None]),
    ],
)
def test_published_values_stand_beside_ours_in_their_setting_alone(images, backbone, expected):
    matrix = np.zeros((2, 3))
    rows = specificity_rows(matrix, ["car", "bus"], "explainer_network", "Explainer", [775, 4], images, backbone)
    assert [row["published"] for row in rows[:3]] == expected
    assert [row["published"] for row in rows[3:]] == [None] * 3  # no figure of this class was found
    assert [(row["true_class"], row["mask_class"], row["n"]) for row in rows[:2]] == [("car", "none", 775), ("car", "car", 775)]  # fmt: skip
    assert published(images, backbone, "cam", "car", "car", 775) is None


@pytest.mark.parametrize("count", [0, 3, 774, 776])
def test_published_values_of_all_test_images_do_not_stand_beside_ours_of_others(count):
    rows = specificity_rows(np.zeros((1, 2)), ["car"], "explainer_network", "Explainer", [count], VOC, VGG)
    assert [row["published"] for row in rows] == [None, None]


def test_pictures_have_a_row_per_pair_and_a_matrix_per_method():
    images, masks = np.zeros((2, 8, 8, 3), np.uint8), {"A": np.zeros((2, 8, 8)), "B": np.ones((2, 8, 8))}
    figure = mask_pictures(images, masks, ["one", "two"], "masks")
    assert len(figure.axes) == 2 * 3
    matrix = np.array([[10, 20, np.nan], [1, 2, 3.0]])
    assert len(specificity_matrices({"A": matrix, "B": matrix}, ["x", "y"], "matrices").axes) == 2
    assert "no image shows a class" in mask_pictures(images[:0], {}, [], "masks").texts[0].get_text()


def test_methods_are_compared_with_controls_and_each_other_on_the_same_images():
    draw = np.random.default_rng(0)
    values = {name: {"f1": draw.random(12), "area": draw.random(12)} for name in ("one", "two", "0", "1")}
    values["one"]["f1"][3] = np.nan  # an image without an object
    values["two"]["area"] = values["0"]["area"] + 1e-12  # equal up to rounding
    table = comparisons(values, ["one", "two"])
    pairs = [("one", "0"), ("one", "1"), ("two", "0"), ("two", "1"), ("two", "one")]
    assert list(zip(table["method"], table["against"], strict=True)) == pairs * 2
    assert table["n"].tolist() == [11, 11, 12, 12, 11] + [12] * 5
    rows = table.set_index(["metric", "method", "against"])
    known = np.arange(12) != 3
    expected = scipy.stats.wilcoxon(values["two"]["f1"][known], values["one"]["f1"][known])
    assert rows.loc[("f1", "two", "one"), "p"] == pytest.approx(expected.pvalue)
    same = rows.loc[("area", "two", "0")]
    assert (same["nonzero_pairs"], same["p"], same["mean_difference"]) == (0, 1, 0)
    np.testing.assert_allclose(rows["p_holm"]["f1"].min(), min(1, 5 * rows["p"]["f1"].min()))
    assert (table["p_holm_smallest"] <= 5 * 2 / 2**11 + 1e-12).all()


def test_one_image_gives_no_comparison():
    assert comparisons({"one": {"f1": np.ones(1)}, "0": {"f1": np.zeros(1)}}, ["one"]).empty
