"""All metrics of all methods, on classifiers whose scores are known by hand or from loops."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bla.base.specs import Backbone
from bla.explainers.occlusion import blurred
from bla.method.initialisation import initial_head
from bla.method.modules import Head
from bla.metrics import BY_NAME
from bla.metrics.confidence import explanation_mask, keep_largest
from bla.metrics.curves import rank_cells
from bla.metrics.measure import Subject, few_cells, measure
from bla.metrics.road import impute, removed_counts
from bla.networks.backbones import build_backbone
from bla.networks.classifier import Classifier
from bla.networks.patches import cells_of_pixels

LOCALISATION = {"pointing_game", "iou", "precision", "recall", "weight_inside"}
OF_CURVES = {f"{kind}_{background}" for kind in ("deletion", "insertion") for background in ("black", "blur")}
ROAD = {"road_morf", "road_lerf"}
OF_PATCHES = OF_CURVES | {"accuracy_image", "loss_image"}
FROM_PIXELS = OF_PATCHES | ROAD
SCORES_FROM_PIXELS = FROM_PIXELS | {"road"}
CONFIDENCE = {f"{kind}_{share}" for kind in ("average_drop", "increase") for share in (100, 50, 15)}
FROM_FEATURES = {"accuracy_features", "loss_features"}


class Brightness(nn.Module):
    """A backbone whose channel k is the brightness of patch k."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        side = images.shape[1] // self.grid
        red = images[..., 0].double().view(-1, self.grid, side, self.grid, side) / 255
        return torch.diag_embed(red.mean(dim=(2, 4)).flatten(1) * self.grid**2).unflatten(2, (self.grid, self.grid))


def seeing(weights: list[float], bias: float) -> Classifier:
    """Two classes; the log odds of the second are the bias plus the weights of the white patches."""
    weight = torch.stack([torch.zeros(len(weights)), torch.tensor(weights)])[None]
    return Classifier(Brightness(math.isqrt(len(weights))), Head(weight, torch.tensor([[0.0, bias]]))).eval()


def probability(log_odds) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(log_odds, float)))


def by_hand(count: int = 1, label: int = 1) -> Subject:
    """White images of 2x2 patches with weights 4, 2, 1 and 0; the log odds are the sum of visible weights minus 3."""
    features = torch.zeros(count, 4, 4)
    labels = np.full(count, label)
    images = torch.full((count, 16, 16, 3), 255, dtype=torch.uint8)
    return Subject(
        seeing([4, 2, 1, 0], -3), images, labels, np.ones(count, int), list(range(count)), features, (2, 2), None
    )


def value(rows: pd.DataFrame, metric: str, method: str = "map", image: int = 0) -> float:
    (found,) = rows.query("method == @method and metric == @metric and image == @image")["value"]
    return found


def points(curves: pd.DataFrame, curve: str, method: str = "map", image: int = 0) -> pd.Series:
    return curves.query("method == @method and curve == @curve and image == @image").set_index("cells")["value"]


def measured(subject: Subject, maps, hard=None, slow=None, at_once=1, orders=2, tied_pixels="orders"):
    """`measure` with curves for every image."""
    there = np.ones(len(subject.images), bool) if slow is None else np.array(slow)
    maps = {name: np.array(values, float) for name, values in maps.items()}
    return measure(subject, maps, hard or {}, there, at_once, orders, tied_pixels)


def test_without_occlusion_all_other_scores_are_the_same():
    subject, maps = by_hand(), {"map": np.array([[6.0, 6, 2, 2]])}
    rows, _ = measure(subject, maps, {}, np.zeros(1, bool), 1, 2)
    fewer, _ = measure(subject, maps, {}, np.zeros(1, bool), 1, 2, occlude=False)
    occluding = rows["metric"].str.startswith(("average_drop", "increase"))
    assert occluding.sum() == 6
    pd.testing.assert_frame_equal(rows[~occluding].reset_index(drop=True), fewer)


def test_the_most_important_cells_are_8_of_49_or_the_same_share():
    assert [few_cells(cells) for cells in (49, 16, 4, 1, 64, 196)] == [8, 3, 1, 1, 10, 32]


def test_curves_and_scores_by_hand():
    rows, curves = measured(by_hand(), {"map": [[9, 7, 5, 3]]})
    shown, hidden = [-3, 1, 3, 4, 4], [4, 0, -2, -3, -3]  # 4, 2, 1 and 0 come and go
    for kind, log_odds in (("insertion", shown), ("deletion", hidden)):
        p = probability(log_odds)
        np.testing.assert_allclose(points(curves, f"{kind}_black"), p, atol=1e-6)
        assert value(rows, f"{kind}_black") == pytest.approx((p[0] / 2 + p[1] + p[2] + p[3] + p[4] / 2) / 4, abs=1e-6)
        # a white image stays white when blurred
        np.testing.assert_allclose(points(curves, f"{kind}_blur"), probability([4] * 5), atol=1e-5)
        assert value(rows, f"{kind}_blur") == pytest.approx(probability(4), abs=1e-5)
    np.testing.assert_allclose(points(curves, "loss_image"), -np.log(probability(shown)), atol=1e-5)
    assert points(curves, "accuracy_image").tolist() == [0, 1, 1, 1, 1]
    assert value(rows, "loss_image") == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-5)  # one cell of four
    assert value(rows, "accuracy_image") == 1


def test_labels_affect_only_accuracy_and_loss():
    right, wrong = (measured(by_hand(label=label), {"map": [[9, 7, 5, 3]]})[0] for label in (1, 0))
    assert (value(right, "accuracy_image"), value(wrong, "accuracy_image")) == (1, 0)
    assert value(wrong, "loss_image") == pytest.approx(math.log(1 + math.exp(1)), abs=1e-5)
    assert value(wrong, "accuracy_features") == 1 - value(right, "accuracy_features")
    same = [metric for metric in right["metric"] if not metric.startswith(("accuracy", "loss"))]
    assert len(same) == 13
    for metric in same:
        assert value(right, metric) == value(wrong, metric)


def test_a_worse_order_has_worse_scores_by_hand():
    rows, _ = measured(by_hand(), {"map": [[9, 7, 5, 3]], "inverted": [[3, 5, 7, 9]]})
    p = probability([-3, -3, -2, 0, 4])
    assert value(rows, "insertion_black", "inverted") == pytest.approx((p.sum() - (p[0] + p[4]) / 2) / 4, abs=1e-6)
    assert value(rows, "accuracy_image", "inverted") == 0
    assert value(rows, "loss_image", "inverted") == pytest.approx(math.log(1 + math.exp(3)), abs=1e-5)


def test_scores_of_tied_cells_are_means_over_orders():
    rows, curves = measured(by_hand(), {"map": [[1, 1, 1, 1]]}, orders=12)
    first = rank_cells(np.ones((1, 4)), [0], 12)[0].numpy() == 0
    share = first[:, 0].mean()  # that begin with the patch which suffices for the class
    assert 0 < share < 1
    assert value(rows, "accuracy_image") == pytest.approx(share)
    losses = -np.log(probability([1, -1, -2, -3]))
    assert value(rows, "loss_image") == pytest.approx((first @ losses).mean(), abs=1e-5)
    assert points(curves, "insertion_black")[1] == pytest.approx(
        (first @ probability([1, -1, -2, -3])).mean(), abs=1e-6
    )


def test_confidence_by_hand():
    # A map that is large only in the two upper patches, scaled to 0 and 1 and upsampled, is constant along rows. The 16
    # rows are four times 1, then 15/16, 13/16, 11/16, 9/16, 7/16, 5/16, 3/16, 1/16, then 0. A patch has 8 rows.
    upper, lower = (4 + (15 + 13 + 11 + 9) / 16) / 8, (7 + 5 + 3 + 1) / 16 / 8
    whole = probability(4)
    rows, _ = measured(by_hand(), {"map": [[6, 6, 2, 2]], "constant": [[5, 5, 5, 5]]}, tied_pixels="last")
    seen = probability(-3 + 6 * upper + lower)
    assert value(rows, "average_drop_100") == pytest.approx(100 * (whole - seen) / whole, abs=1e-4)
    seen = probability(-3 + 6 * upper)  # the larger half are the eight upper rows
    assert value(rows, "average_drop_50") == pytest.approx(100 * (whole - seen) / whole, abs=1e-4)
    # 39 of 256 pixels: of the 64 that are 1, in rows 0 to 3, the last ones: 7 of row 1 and rows 2 and 3
    seen = probability(-3 + 2 * 23 / 64 + 4 * 16 / 64)
    assert value(rows, "average_drop_15") == pytest.approx(100 * (whole - seen) / whole, abs=1e-4)
    assert [value(rows, f"increase_{share}") for share in (100, 50, 15)] == [0, 0, 0]
    # a constant map keeps the whole image, so nothing changes
    assert value(rows, "average_drop_100", "constant") == pytest.approx(0, abs=1e-9)
    assert value(rows, "increase_100", "constant") == 0


def test_hiding_evidence_against_the_class_increases_confidence():
    subject = by_hand()
    against = Subject(seeing([4, -2, -1, 0], -1), *list(vars(subject).values())[1:])
    rows, _ = measured(against, {"map": [[9, 0, 0, 0]], "inverted": [[0, 9, 9, 9]]})
    assert [value(rows, f"increase_{share}") for share in (100, 50)] == [100, 100]
    assert [value(rows, f"average_drop_{share}") for share in (100, 50)] == [0, 0]
    assert [value(rows, f"increase_{share}", "inverted") for share in (100, 50, 15)] == [0, 0, 0]
    assert all(value(rows, f"average_drop_{share}", "inverted") > 50 for share in (100, 50, 15))


GRID, SIDE, CLASSES, IMAGES = 4, 64, 3, 4
TIED = "tied"


@pytest.fixture(scope="module")
def classifier():
    """A small random backbone with a 4x4 map, and a head with large weights."""
    torch.manual_seed(0)
    extractor = build_backbone(
        Backbone(architecture="test_resnet", weights="none", normalisation="imagenet", output_stride=16), SIDE
    ).eval()
    head = initial_head([0], extractor.model.num_features, CLASSES)
    return Classifier(extractor, Head(head.weight * 20, head.bias)).eval()


@pytest.fixture(scope="module")
def subject(classifier):
    rng = np.random.default_rng(2)
    images = torch.from_numpy(rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8))
    with torch.no_grad():
        features = classifier.features(images).flatten(2).transpose(1, 2).contiguous()
        targets = classifier(images)[0].argmax(dim=1).numpy()
    labels = np.where(np.arange(IMAGES) % 2, targets, (targets + 1) % CLASSES)
    masks = np.zeros((IMAGES, SIDE, SIDE), bool)
    masks[0, 5:40, 10:33] = masks[1, 30:60, 2:20] = masks[3, 20:44, 20:64] = True  # image 2 has no object
    return Subject(classifier, images, labels, targets, [11, 12, 13, 14], features, (4, 4), masks)


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(3)
    found = {
        "distinct": rng.normal(size=(IMAGES, GRID**2)),
        TIED: rng.integers(-1, 3, (IMAGES, GRID**2)).astype(float),
        "missing": rng.normal(size=(IMAGES, GRID**2)),
        "module": rng.random((IMAGES, GRID**2)),
    }
    found["missing"][1] = np.nan
    found["module"][0] = 1 / 16
    return found


@pytest.fixture(scope="module")
def hard():
    found = np.random.default_rng(4).random((2, IMAGES, GRID**2)) < 0.4
    return {"module": found[0], "missing": found[1]}


SLOW = np.array([True, True, False, True])


@pytest.fixture(scope="module")
def everything(subject, maps, hard):
    return measure(subject, maps, hard, SLOW, at_once=6, orders=2)


STEPS = [0, 3, 6, 12, 16]


def painted(image: torch.Tensor, shown: list[int], background: torch.Tensor) -> torch.Tensor:
    """The image with all but some patches taken from another image."""
    result, side = background.clone().float(), SIDE // GRID
    for cell in shown:
        rows, columns = (slice(at * side, (at + 1) * side) for at in divmod(cell, GRID))
        result[rows, columns] = image[rows, columns].float()
    return result


@pytest.mark.parametrize("method", ["distinct", TIED])
def test_curves_agree_with_images_painted_one_by_one(method, subject, maps, everything):
    rows, curves = everything
    image = 3
    picture, target, label = subject.images[image], subject.targets[image], subject.labels[image]
    ranks = rank_cells(maps[method][image : image + 1], [subject.seeds[image]], 2)[0].numpy()
    backgrounds = {"black": torch.zeros(SIDE, SIDE, 3), "blur": blurred(picture[None])[0]}
    wanted = {curve: np.zeros(len(STEPS)) for curve in OF_PATCHES}
    for name, background in backgrounds.items():
        for place, count in enumerate(STEPS):
            for order in ranks:
                first = [cell for cell in range(GRID**2) if order[cell] < count]
                last = [cell for cell in range(GRID**2) if order[cell] >= count]
                both = torch.stack([painted(picture, first, background), painted(picture, last, background)])
                with torch.no_grad():
                    p = subject.classifier(both)[0].double().softmax(dim=1).numpy()
                wanted[f"insertion_{name}"][place] += p[0, target] / 2
                wanted[f"deletion_{name}"][place] += p[1, target] / 2
                if name == "black":
                    wanted["accuracy_image"][place] += (p[0].argmax() == label) / 2
                    wanted["loss_image"][place] -= np.log(p[0, label]) / 2
    for curve, values in wanted.items():
        found = points(curves, curve, method, image)
        assert found.index.tolist() == STEPS
        np.testing.assert_allclose(found, values, atol=1e-4)
        area = sum((b - a) / 16 * (v + w) / 2 for a, b, v, w in zip(STEPS, STEPS[1:], values, values[1:]))  # noqa: B905
        score = values[1] if curve.endswith("image") else area
        assert value(rows, curve, method, image) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("method", ["distinct", TIED])
def test_road_agrees_with_images_imputed_one_by_one(method, subject, maps, everything):
    rows, curves = everything
    image, counts = 3, removed_counts(GRID**2)
    ranks = rank_cells(maps[method][image : image + 1], [subject.seeds[image]], 2)[0]
    expected = np.zeros((2, len(counts)))
    for place, count in enumerate(counts):
        for order in ranks:
            for row, gone in enumerate((order < count, order >= GRID**2 - count)):
                pixels = impute(subject.images[image], gone[None], (GRID, GRID), subject.seeds[image])
                with torch.no_grad():
                    logits = subject.classifier.logits(subject.classifier.features(pixels))[0].double()
                expected[row, place] += logits.softmax(dim=1)[0, subject.targets[image]].item() / 2
    for metric, values in zip(("road_morf", "road_lerf"), expected, strict=True):
        np.testing.assert_allclose(points(curves, metric, method, image), values, atol=1e-4)
        assert value(rows, metric, method, image) == pytest.approx(values.mean(), abs=1e-4)
    difference = expected[1].mean() - expected[0].mean()
    assert value(rows, "road", method, image) == pytest.approx(difference, abs=1e-4)


def test_road_prefers_the_map_that_ranks_the_evidence_first():
    # Only the patch with the largest weight is white; it is black when removed, since its neighbours are.
    subject, bright = by_hand(), torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    bright[:, :8, :8] = 255
    subject = Subject(subject.classifier, bright, *list(vars(subject).values())[2:])
    rows, _ = measured(subject, {"map": [[9, 7, 5, 3]], "inverted": [[3, 5, 7, 9]]})
    assert value(rows, "road") > 0 > value(rows, "road", "inverted")
    assert value(rows, "road") == pytest.approx(-value(rows, "road", "inverted"), abs=1e-9)


@pytest.mark.parametrize("at_once", [1, 5])
def test_road_does_not_depend_on_the_batch_size(at_once, subject, maps, everything, monkeypatch):
    monkeypatch.setattr("bla.metrics.measure.IMPUTED_AT_ONCE", at_once)
    rows, curves = measure(subject, {TIED: maps[TIED]}, {}, SLOW, at_once=6, orders=2)
    for found, expected in zip((rows, curves), everything, strict=True):
        column = "metric" if "metric" in found else "curve"
        keep = ["road", "road_morf", "road_lerf"]
        a, b = (table[(table["method"] == TIED) & table[column].isin(keep)]["value"] for table in (found, expected))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_curves_start_and_end_at_the_whole_and_the_hidden_image(subject, everything):
    _, curves = everything
    with torch.no_grad():
        whole, black = (subject.classifier(x)[0].double().softmax(dim=1) for x in (subject.images, subject.images * 0))
        veiled = subject.classifier(blurred(subject.images))[0].double().softmax(dim=1)
    for method, image in [("distinct", 0), ("distinct", 1), ("missing", 3), ("module", 0)]:
        target = subject.targets[image]
        for name, hidden in (("black", black), ("blur", veiled)):
            ends = [hidden[image, target], whole[image, target]]
            insertion = points(curves, f"insertion_{name}", method, image)
            deletion = points(curves, f"deletion_{name}", method, image)
            np.testing.assert_allclose(insertion[[0, 16]], ends, atol=1e-5)
            np.testing.assert_allclose(deletion[[0, 16]], ends[::-1], atol=1e-5)


def test_features_are_pooled_over_the_most_important_cells(subject, maps, everything):
    rows, curves = everything
    weight, bias = subject.classifier.tail.weight[0].numpy(), subject.classifier.tail.bias[0].numpy()
    for method in ("distinct", TIED):
        for image in range(IMAGES):
            ranks = rank_cells(maps[method][image : image + 1], [subject.seeds[image]], 2)[0].numpy()
            for count in STEPS[1:]:
                right = loss = 0.0
                for order in ranks:
                    mean = np.mean([subject.features[image, c].numpy() for c in range(16) if order[c] < count], axis=0)
                    logits = (weight @ mean + bias).astype(float)
                    right += (logits.argmax() == subject.labels[image]) / 2
                    loss += (np.log(np.exp(logits).sum()) - logits[subject.labels[image]]) / 2
                assert points(curves, "accuracy_features", method, image)[count] == right
                assert points(curves, "loss_features", method, image)[count] == pytest.approx(loss, abs=1e-4)
                if count == 3:
                    assert value(rows, "accuracy_features", method, image) == right
                    assert value(rows, "loss_features", method, image) == pytest.approx(loss, abs=1e-4)
    assert set(curves.query("curve in @FROM_FEATURES")["cells"]) == set(STEPS[1:])
    everyone = curves.query("cells == 16 and curve == 'loss_features'").groupby("image")["value"]
    assert (everyone.max() - everyone.min()).max() < 1e-5


def test_confidence_is_of_the_image_times_the_mask(subject, maps, everything):
    rows, _ = everything
    cells = cells_of_pixels((SIDE, SIDE), (GRID, GRID))
    with torch.no_grad():
        whole = subject.classifier(subject.images)[0].double().softmax(dim=1)
        for method in ("distinct", "module", TIED):
            masks = explanation_mask(torch.from_numpy(maps[method]).view(-1, GRID, GRID), (SIDE, SIDE))
            orders = rank_cells(maps[method], subject.seeds, 2)[:, :, cells]  # the two orders of tied cells
            for share in (100, 50, 15):
                both = [keep_largest(masks, share / 100, orders[:, order])[0][..., None].float() for order in range(2)]
                seen = [subject.classifier(subject.images * kept)[0].double().softmax(dim=1) for kept in both]
                for image, target in enumerate(subject.targets):
                    y, *of_orders = (p[image, target].item() for p in (whole, *seen))
                    drop = np.mean([100 * max(0, y - o) / y for o in of_orders])
                    assert value(rows, f"average_drop_{share}", method, image) == pytest.approx(drop, abs=1e-2)
                    if min(abs(o - y) for o in of_orders) > 1e-4:
                        more = np.mean([100 * (o > y) for o in of_orders])
                        assert value(rows, f"increase_{share}", method, image) == more


def test_of_a_constant_map_half_the_cells_are_kept_in_each_random_order_and_by_the_public_rule_the_lower_half():
    whole = probability(4)
    rows, _ = measured(by_hand(), {"map": [[1, 1, 1, 1]]}, orders=6)
    kept = rank_cells(np.ones((1, 4)), [0], 6)[0].numpy() < 2
    drops = [100 * (whole - probability(-3 + weights)) / whole for weights in kept @ [4, 2, 1, 0]]
    assert value(rows, "average_drop_100") == 0
    assert value(rows, "average_drop_50") == pytest.approx(np.mean(drops), abs=1e-4)
    rows, _ = measured(by_hand(), {"map": [[1, 1, 1, 1]]}, orders=6, tied_pixels="last")
    assert value(rows, "average_drop_50") == pytest.approx(100 * (whole - probability(-3 + 1 + 0)) / whole, abs=1e-4)


@pytest.mark.parametrize(
    ("rows", "share", "kept"),
    [  # the shares of the four patches that are left, each of these equally likely
        ([1, 1, 1, 1], 50, [[k in pair for k in range(4)] for pair in itertools.combinations(range(4), 2)]),
        ([1, 1, 1, 1], 15, np.eye(4) * 39 / 64),  # 39 pixels of a patch of 64
        ([2, 2, 1, 1], 15, [[32 / 64, 7 / 64, 0, 0], [7 / 64, 32 / 64, 0, 0]]),  # 39 of the 64 pixels in the four upper rows
        ([1, 1, 2, 2], 15, [[0, 0, 32 / 64, 7 / 64], [0, 0, 7 / 64, 32 / 64]]),
        ([1, 2, 1, 2], 15, [[0, 32 / 64, 0, 7 / 64], [0, 7 / 64, 0, 32 / 64]]),  # to the right
    ],
)  # fmt: skip
def test_the_drop_of_tied_pixels_is_the_mean_over_all_choices_between_patches_wherever_they_are(rows, share, kept):
    """By enumeration, for a classifier whose log odds are the sum of the brightness of patches times 4, 2, 1 and 0."""
    whole = probability(4)
    drops = 100 * np.maximum(0, whole - probability(-3 + np.array(kept, float) @ [4, 2, 1, 0])) / whole
    found, _ = measured(by_hand(), {"map": [rows]}, orders=300)
    assert value(found, f"average_drop_{share}") == pytest.approx(drops.mean(), abs=4 * drops.std() / 300**0.5)


def counted(chosen: np.ndarray, mask: np.ndarray) -> list[float]:
    """Intersection over union, precision and recall of cells `[n]`, every pixel counted."""
    shown = np.kron(chosen.reshape(GRID, GRID), np.ones((SIDE // GRID, SIDE // GRID))) > 0
    both = (shown & mask).sum()
    return [both / (shown | mask).sum(), both / shown.sum(), both / mask.sum()]


def test_localisation_uses_hard_explanations_of_modules_and_the_most_important_cells_of_other_methods(
    subject, maps, hard, everything
):
    rows, _ = everything
    for image in (0, 1, 3):
        for method, values in maps.items():
            if not np.isfinite(values[image]).all():
                continue
            ranks = rank_cells(values[image : image + 1], [subject.seeds[image]], 2)[0].numpy()
            chosen = [hard[method][image]] if method in hard else [order < 3 for order in ranks]
            wanted = np.mean([counted(cells, subject.masks[image]) for cells in chosen], axis=0)
            found = [value(rows, metric, method, image) for metric in ("iou", "precision", "recall")]
            np.testing.assert_allclose(found, wanted)
            positive = np.kron(np.maximum(values[image], 0).reshape(GRID, GRID), np.ones((16, 16)))
            inside = (positive * subject.masks[image]).sum() / positive.sum()
            assert value(rows, "weight_inside", method, image) == pytest.approx(inside)


def test_an_image_without_an_object_has_no_localisation(everything):
    rows, _ = everything
    assert rows.query("image == 2 and metric in @LOCALISATION")["value"].isna().all()
    assert rows.query("image != 2 and method != 'module'")["value"].notna().all()


def test_there_is_one_row_per_method_metric_and_image_for_declared_metrics(everything, maps):
    rows, curves = everything
    assert rows.columns.tolist() == ["method", "metric", "image", "value"]
    assert not rows.duplicated(["method", "metric", "image"]).any()
    assert set(rows["metric"]) == LOCALISATION | SCORES_FROM_PIXELS | CONFIDENCE | FROM_FEATURES
    assert set(rows["metric"]) <= set(BY_NAME)
    assert set(rows["method"]) == set(maps)
    assert curves.columns.tolist() == ["method", "curve", "cells", "share", "image", "value"]
    assert set(curves["curve"]) == FROM_PIXELS | FROM_FEATURES
    assert not curves.duplicated(["method", "curve", "cells", "image"]).any()
    np.testing.assert_allclose(curves["share"], curves["cells"] / 16)


def test_a_missing_map_has_no_rows(everything):
    rows, curves = everything
    for table in (rows, curves):
        assert set(table.query("method == 'missing'")["image"]) == {0, 2, 3}
        assert set(table.query("method == 'distinct'")["image"]) == {0, 1, 2, 3}


def test_only_slow_images_have_pixel_curves(everything):
    rows, curves = everything
    assert set(rows.query("image == 2")["metric"]) == LOCALISATION | CONFIDENCE | FROM_FEATURES
    assert set(curves.query("image == 2")["curve"]) == FROM_FEATURES
    assert set(rows.query("image == 3")["metric"]) == LOCALISATION | CONFIDENCE | FROM_FEATURES | SCORES_FROM_PIXELS


def test_without_masks_there_is_no_localisation(subject, maps, everything):
    bare = Subject(**(vars(subject) | {"masks": None}))
    rows, curves = measure(bare, {"distinct": maps["distinct"]}, {}, SLOW, at_once=6, orders=2)
    assert set(rows["metric"]) == SCORES_FROM_PIXELS | CONFIDENCE | FROM_FEATURES
    same(rows, everything[0].query("method == 'distinct' and metric not in @LOCALISATION"))
    same(curves, everything[1].query("method == 'distinct'"))


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """The same rows in any order, up to rounding."""
    keys = [column for column in first if column not in ("value", "share")]
    a, b = (table.set_index(keys)["value"].sort_index() for table in (first, second))
    assert a.index.equals(b.index)
    np.testing.assert_allclose(a, b, atol=1e-2 if "metric" in keys else 1e-4)


@pytest.mark.parametrize("methods", [(TIED,), ("module",), ("missing", "distinct")], ids=str)
def test_scores_do_not_depend_on_other_methods(methods, subject, maps, hard, everything):
    alone = measure(subject, {name: maps[name] for name in methods}, hard, SLOW, at_once=6, orders=2)
    for few, many in zip(alone, everything, strict=True):
        same(few, many.query("method in @methods"))


def test_an_image_without_any_map_has_no_rows(subject, maps, hard, everything):
    for few, many in zip(measure(subject, {"missing": maps["missing"]}, hard, SLOW, 6, 2), everything, strict=True):
        same(few, many.query("method == 'missing'"))


def test_a_method_without_any_map_has_no_rows(subject, maps, hard, everything):
    with_none = {"distinct": maps["distinct"], "none": np.full((IMAGES, GRID**2), np.nan)}
    for few, many in zip(measure(subject, with_none, hard, SLOW, 6, 2), everything, strict=True):
        same(few, many.query("method == 'distinct'"))


def test_scores_do_not_depend_on_the_order_of_images(subject, maps, hard, everything):
    turned = [2, 0, 3, 1]
    seeds = [subject.seeds[image] for image in turned]
    other = Subject(
        subject.classifier, subject.images[turned], subject.labels[turned], subject.targets[turned],
        seeds, subject.features[turned], subject.grid, subject.masks[turned],
    )  # fmt: skip
    tables = measure(
        other,
        {name: values[turned] for name, values in maps.items()},
        {name: values[turned] for name, values in hard.items()},
        SLOW[turned],
        at_once=6,
        orders=2,
    )
    for found, wanted in zip(tables, everything, strict=True):
        same(found.assign(image=np.array(turned)[found["image"]]), wanted)


def test_the_object_as_map_beats_its_inverse_if_the_classifier_uses_the_object():
    inside = np.zeros((4, 4), bool)
    inside[1:3, 1:3] = True
    weights = np.where(inside, 2.0, 0.0).ravel()
    images = torch.from_numpy(np.random.default_rng(5).integers(150, 256, (2, 32, 32, 3), dtype=np.uint8))
    masks = np.tile(np.kron(inside, np.ones((8, 8))) > 0, (2, 1, 1))
    subject = Subject(seeing(weights.tolist(), -3), images, np.ones(2, int), np.ones(2, int), [0, 1], torch.zeros(2, 16, 16), (4, 4), masks)  # fmt: skip
    object_map = np.tile(inside.ravel().astype(float), (2, 1))
    rows, _ = measured(subject, {"mask": object_map, "inverted": 1 - object_map}, at_once=4, orders=3)
    assert not subject.coverage()[:, ~inside.ravel()].any()
    for image in range(2):
        for metric in (
            "deletion_black",
            "insertion_black",
            "average_drop_100",
            "average_drop_50",
            *LOCALISATION,
            "loss_image",
        ):
            good, bad = value(rows, metric, "mask", image), value(rows, metric, "inverted", image)
            assert good < bad if BY_NAME[metric].better == "lower" else good > bad, metric
        assert value(rows, "precision", "mask", image) == 1
        assert value(rows, "recall", "mask", image) == 0.75  # three cells of the four
        assert value(rows, "weight_inside", "inverted", image) == 0


def test_blurring_hides_less_than_black_if_brightness_decides():
    rows, _ = measured(by_hand(2), {"map": [[9, 7, 5, 3]] * 2})
    for image in range(2):
        assert value(rows, "deletion_blur", image=image) > value(rows, "deletion_black", image=image)


def test_equal_inputs_give_equal_tables(subject, maps, hard):
    few = {TIED: maps[TIED]}
    first, second = (measure(subject, few, hard, SLOW, at_once=8, orders=2) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(a, b)
