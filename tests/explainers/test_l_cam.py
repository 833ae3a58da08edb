"""L-CAM-Fm and L-CAM-Img: objective, training step and maps, against values computed by hand, torch.optim and scipy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_networks import SIDE, Small, random_head
from torch import nn
from torch.nn.functional import cross_entropy

from bla.base.errors import BlaError
from bla.base.specs import Schedule
from bla.explainers.all_maps import features_of, retrained_maps
from bla.explainers.contract import check_explainer, check_learned
from bla.explainers.interface import CONSTANTS, TrainingData
from bla.explainers.l_cam import (
    LCamSettings,
    Objective,
    area,
    as_maps,
    class_maps,
    initial,
    predictions,
    regularisers,
    smoothness,
    step,
    train,
)
from bla.explainers.learned.l_cam_fm import LCamFm
from bla.explainers.learned.l_cam_img import LCamImg, LCamImgSettings
from bla.method.modules import Head
from bla.networks.classifier import Classifier

CPU = torch.device("cpu")
SCHEDULE = Schedule(batch_size=2, epochs=2, learning_rate=0.01, dropout=0.2, adam_epsilon=1e-7)


def data_of(classifier, images, grid=(4, 4)):
    """Training data of these images; the labels are wrong on purpose: the methods learn the classifier's predictions."""
    features = features_of(classifier, images).half()
    return TrainingData(features, grid, images.numpy(), torch.zeros(len(images), dtype=torch.int64), SCHEDULE, CPU)


def rows_of(count):
    return torch.arange(count)


class Flatten(nn.Module):
    """A tail that does not pool: a linear layer on all cells."""

    def __init__(self, channels, cells):
        super().__init__()
        self.layer = nn.Linear(channels * cells, 3).requires_grad_(False)

    def forward(self, features):
        return self.layer(features.flatten(1).float())[None]


# -- the objective


@pytest.mark.parametrize("side", [7, 14])
def test_area_and_smoothness_of_a_constant_mask(side):
    mask = torch.full((side, side), 0.5)
    assert area(mask).item() == pytest.approx(0.8124960, abs=1e-6)
    assert smoothness(mask).item() == pytest.approx({14: 2.1, 7: 1.05}[side], abs=1e-6)
    assert (2 * area(mask) + 0.01 * smoothness(mask)).item() == pytest.approx({14: 1.6459920, 7: 1.6354920}[side], abs=1e-6)  # fmt: skip


def test_area_and_smoothness_of_a_mask_by_hand():
    mask = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0, 0]])
    squares = (1 + 0.25 + 0.25) + (1 + 0.25 + 0.25)  # differences of neighbours: down, and to the right
    border = 1 + 0 + 1 + 0  # first and last row, first and last column: the corner counts twice
    assert smoothness(mask).item() == pytest.approx((squares + 0.3 * border) / 2)
    assert area(mask).item() == pytest.approx((1.0005**0.3 + 0.5005**0.3 + 7 * 0.0005**0.3) / 9)


def test_random_masking_keeps_the_area_and_multiplies_smoothness_by_the_batch():
    for labels in ([0, 1], [2, 2], [0, 1, 2, 2]):
        masks, y = torch.full((len(labels), 3, 7, 7), 0.5), torch.tensor(labels)
        own, pairs = (regularisers(masks, y, masking) for masking in ("diagonal", "random"))
        assert own[0].item() == pairs[0].item() == pytest.approx(0.8124960, abs=1e-6)
        assert own[1].item() == pytest.approx(1.05)
        assert pairs[1].item() == pytest.approx(1.05 * len(labels))


def test_regularisers_are_sums_over_pairs_of_image_and_label():
    masks = torch.rand(4, 5, 3, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 0, 3, 1])
    own = [masks[i, labels[i]] for i in range(4)]
    pairs = [masks[i, labels[j]] for i in range(4) for j in range(4)]
    for masking, chosen in (("diagonal", own), ("random", pairs)):
        found = regularisers(masks, labels, masking)
        assert found[0].item() == pytest.approx(np.mean([area(one) for one in chosen]), rel=1e-5)
        assert found[1].item() == pytest.approx(np.sum([smoothness(one) for one in chosen]) / 4, rel=1e-5)


@pytest.mark.parametrize("masking", ["random", "diagonal"])
def test_the_objective_is_its_three_terms_computed_with_all_channels(masking):
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.rand(3, 4, 5, generator=generator), torch.tensor([6, 2, 6])
    weight, bias = torch.randn(8, 5, generator=generator), torch.randn(8, generator=generator)
    scores = torch.randn(3, 8, generator=generator)
    seen = []
    settings = LCamSettings(cross_entropy=0.7, area=3, smoothness=0.2, masking=masking)
    objective = Objective(settings, "softmax", (2, 2), lambda x, masks, rows: seen.append(masks) or scores[None])
    (found,) = objective([(weight, bias)], features, labels, rows_of(3))
    masks = torch.einsum("bnc,kc->bkn", features, weight).add(bias[:, None]).sigmoid().view(3, 8, 2, 2)
    size, roughness = regularisers(masks, labels, masking)
    assert found.item() == pytest.approx((0.7 * cross_entropy(scores, labels) + 3 * size + 0.2 * roughness).item(), rel=1e-5)  # fmt: skip
    torch.testing.assert_close(seen[0], masks[None, [0, 1, 2], labels])


@pytest.mark.parametrize(("channels", "count"), [(512, 513_000), (2048, 2_049_000)], ids=["VGG-16", "ResNet-50"])
def test_the_number_of_parameters_of_a_head_for_a_thousand_classes(channels, count):
    assert sum(tensor.numel() for tensor in initial(1000, channels, 0, CPU)) == count


# -- training


def test_a_training_step_computed_by_hand():
    """Two cells, one channel, two classes; the classifier's scores are W (mean of a_i f_i) + b."""
    head = Head(torch.tensor([[[1.0], [-1.0]]]), torch.zeros(1, 2))
    features, labels = torch.tensor([[[2.0], [1.0]]]), torch.tensor([0])
    method = LCamFm(Classifier(Small(), head), LCamSettings())
    data = TrainingData(features[None], (1, 2), None, labels, SCHEDULE, CPU)
    objective = method._objective(0, data)
    w, b = 0.1, 0.2
    weight, bias = torch.tensor([[w], [9.0]], requires_grad=True), torch.tensor([b, 9.0], requires_grad=True)

    def by_hand(w, b):
        a = 1 / (1 + np.exp(-(w * np.array([2.0, 1.0]) + b)))
        pooled = (2 * a[0] + a[1]) / 2
        loss = np.log(1 + np.exp(-2 * pooled))  # scores are pooled and -pooled
        size = ((a + 0.0005) ** 0.3).mean()
        # One row, which is both the first and the last; the columns are the cells.
        roughness = ((a[0] - a[1]) ** 2 + 0.3 * (2 * (a**2).sum() + (a**2).sum())) / 2
        return 1.5 * loss + 2 * size + 0.01 * roughness

    (loss,) = objective([(weight, bias)], features, labels, rows_of(1))
    assert loss.item() == pytest.approx(by_hand(w, b), rel=1e-5)
    gradients, h = torch.autograd.grad(loss, [weight, bias]), 1e-5
    slopes = [(by_hand(w + h, b) - by_hand(w - h, b)) / 2 / h, (by_hand(w, b + h) - by_hand(w, b - h)) / 2 / h]
    np.testing.assert_allclose([gradients[0][0, 0], gradients[1][0]], slopes, rtol=1e-3)
    velocities = [torch.zeros_like(weight), torch.zeros_like(bias)]
    step([weight, bias], velocities, gradients, 0.1)
    for found, before, slope in ((weight[0, 0], w, slopes[0]), (bias[0], b, slopes[1])):
        slope = slope + 5e-4 * before
        assert found.item() == pytest.approx(before - 0.1 * (slope + 0.9 * slope), rel=1e-5)  # Nesterov's first step
    assert weight[1, 0].item() == pytest.approx(9 - 0.1 * 1.9 * 5e-4 * 9)  # another class: weight decay alone


def test_steps_are_those_of_torch_sgd():
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    theirs, ours = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimiser, velocity = torch.optim.SGD([theirs], lr=0.3, momentum=0.9, nesterov=True, weight_decay=5e-4), torch.zeros(3, 4)  # fmt: skip
    for _ in range(5):
        optimiser.zero_grad()
        theirs.sin().square().sum().backward()
        optimiser.step()
        step([ours], [velocity], torch.autograd.grad(ours.sin().square().sum(), [ours]), 0.3)
    torch.testing.assert_close(ours, theirs)


def test_training_masks_the_cells_that_do_not_show_the_class():
    generator, count = torch.Generator().manual_seed(0), 60
    labels, cells = torch.arange(count) % 3, torch.randint(0, 9, (count,), generator=generator)
    features = torch.rand(count, 9, 6, generator=generator)
    features[torch.arange(count), cells, labels] += 20
    head = Head(torch.eye(3, 6)[None].repeat(2, 1, 1) * 2, torch.zeros(2, 3))
    data = TrainingData(features[None].half(), (3, 3), None, labels * 0, SCHEDULE, CPU)
    method = LCamFm(Classifier(Small(), head), LCamSettings(learning_rate=0.05, batch_size=20, epochs=40))
    assert predictions(method.classifier, data)[0].equal(labels.expand(2, 1, count))
    method.load(method.fit(data, [3, 4]))
    maps = class_maps(method.state, as_maps(features, (3, 3)), labels.expand(2, count))
    assert (maps.flatten(2).argmax(dim=2) == cells).float().mean() > 0.95
    assert (method.state["losses"][:, -1] < method.state["losses"][:, 0]).all()
    value, constant = method.objective(data, [3, 4]).unbind(dim=1)
    assert (value < constant).all()


def test_each_run_learns_the_predictions_of_its_own_head():
    classifier = Classifier(Small(), random_head(2, 6)).eval()
    images = torch.randint(0, 256, (8, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    data = data_of(classifier, images)
    labels, classes = predictions(classifier, data)
    assert classes == 3
    assert labels[:, 0].equal(classifier(images).argmax(dim=2))
    assert not labels[0].equal(labels[1])
    both = LCamFm(classifier, LCamSettings(epochs=2)).fit(data, [5, 6])
    for run in range(2):
        alone = LCamFm(classifier.run(run), LCamSettings(epochs=2)).fit(data, [5 + run])
        for name, values in alone.items():
            assert values[0].equal(both[name][run]), name


def test_run_r_reads_draw_r_plus_epoch():
    classifier, seen = Classifier(Small(), random_head(1, 6)), []
    features = torch.arange(3.0)[:, None, None, None].expand(3, 4, 16, 6).half()
    data = TrainingData(features, (4, 4), None, torch.zeros(4), SCHEDULE, CPU)

    def masked(x, masks, rows):
        seen.append(x.unique().tolist())
        return classifier.logits(as_maps(x * masks[0].flatten(1)[..., None], (4, 4)))

    objective = Objective(LCamSettings(epochs=4), "softmax", (4, 4), masked)
    train(objective, data, predictions(classifier, data)[0][0], 3, 0, 2)
    assert seen == [[2], [0], [1], [2]]


def test_training_from_files_gives_another_order_but_the_same_images():
    classifier, seen = Classifier(Small(), random_head(1, 6)), []
    features = torch.arange(10.0)[None, :, None, None].expand(1, 10, 16, 6).half()
    data = TrainingData(features, (4, 4), None, torch.zeros(10), replace(SCHEDULE, images_in_memory=4), CPU)
    labels = predictions(classifier, data)[0][0]

    def masked(x, masks, rows):
        seen.append(x[:, 0, 0].tolist())
        return classifier.logits(as_maps(x * masks[0].flatten(1)[..., None], (4, 4)))

    train(Objective(LCamSettings(epochs=1, batch_size=2), "softmax", (4, 4), masked), data, labels, 3, 0, 0)
    assert sorted(number for batch in seen for number in batch) == list(range(10))
    assert {len(batch) for batch in seen} == {2}


def test_a_loss_that_is_not_finite_is_refused():
    classifier = Classifier(Small(), random_head(1, 6, spread=1e37))
    data = TrainingData(torch.full((1, 4, 16, 6), 60000.0).half(), (4, 4), None, torch.zeros(4), SCHEDULE, CPU)
    with pytest.raises(BlaError, match=r"the training loss is not finite in epoch [12]; lower learning_rate"):
        LCamFm(classifier).fit(data, [0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_named_and_not_the_learning_rate(value):
    features = torch.ones(1, 4, 16, 6).half()
    features[0, 2, 5, 3] = value
    data = TrainingData(features, (4, 4), None, torch.zeros(4), SCHEDULE, CPU)
    with pytest.raises(BlaError, match=r"^the features of 1 of 4 training images are NaN or infinite: numbers 2, "):
        LCamFm(Classifier(Small(), random_head(1, 6))).fit(data, [0])


# -- what is masked


@pytest.mark.parametrize("tail", ["pooled", "own"])
def test_fm_classifies_the_feature_map_that_the_mask_weighs(tail):
    classifier = Classifier(Small(), random_head(2, 6) if tail == "pooled" else Flatten(6, 16)).eval()
    generator = torch.Generator().manual_seed(0)
    features, masks = torch.randn(3, 16, 6, generator=generator), torch.rand(2, 3, 4, 4, generator=generator)
    run = classifier.runs - 1
    data = TrainingData(features[None], (4, 4), None, torch.zeros(3), SCHEDULE, CPU)
    found = LCamFm(classifier).masked(run, data)(features, masks, rows_of(3))
    assert found.shape == (2, 3, 3)
    for of_masks, scores in zip(masks, found, strict=True):
        torch.testing.assert_close(scores, classifier.logits(as_maps(features, (4, 4)) * of_masks[:, None])[run])


@pytest.mark.parametrize("background", ["black", "mean"])
def test_img_lays_the_enlarged_mask_over_the_image(background, images):
    classifier = Classifier(Small(), random_head(2, 6)).eval()
    method = LCamImg(classifier, LCamImgSettings(background=background))
    masks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(4))
    share = np.stack([ndimage.zoom(m, SIDE // 4, order=1, mode="nearest", grid_mode=True) for m in masks.numpy()])[..., None]  # fmt: skip
    colour = np.array({"black": [0, 0, 0], "mean": [120, 110, 90]}[background])
    expected = images.numpy() * share + colour * (1 - share)
    np.testing.assert_allclose(method.shown(images, masks), expected, atol=1e-3)
    data, rows = data_of(classifier, images), torch.tensor([2, 0, 1])
    scores = method.masked(1, data)(data.features[0], torch.stack([masks, 0 * masks]), rows)
    given = torch.from_numpy(images[rows].numpy() * share + colour * (1 - share)).float()
    hidden = torch.from_numpy(colour).expand(3, SIDE, SIDE, 3).float()
    torch.testing.assert_close(scores, torch.stack([classifier(given)[1], classifier(hidden)[1]]), rtol=1e-4, atol=1e-4)


def test_the_full_mask_shows_the_image_and_the_empty_mask_the_background(images):
    method = LCamImg(Classifier(Small(), random_head(1, 6)), LCamImgSettings(background="mean"))
    assert method.shown(images, torch.ones(3, 4, 4)).equal(images.float())
    assert method.shown(images, torch.zeros(3, 4, 4)).flatten(0, 2).unique(dim=0).tolist() == [[120, 110, 90]]


def test_img_uses_at_most_so_many_images_and_runs(images):
    classifier = Classifier(Small(), random_head(3, 6)).eval()
    many = torch.randint(0, 256, (10, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    data = data_of(classifier, many)
    for count, rows in ((4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))):
        used = LCamImg(classifier, LCamImgSettings(images=count)).used(data)
        np.testing.assert_array_equal(used.images, many[rows].numpy())
        assert used.features.equal(data.features[:, rows])
        assert len(used.labels) == len(rows)
    method = LCamImg(classifier, LCamImgSettings(runs=2, images=4, epochs=1, batch_size=2))
    assert method.fitted_runs == 2
    assert LCamImg(classifier, LCamImgSettings(runs=9)).fitted_runs == 3
    assert LCamImg(classifier.run(1)).fitted_runs == 1
    method.load(method.fit(data, [5, 6]))
    assert len(method.state["weight"]) == 2
    maps = method.explain_runs(images, torch.zeros(2, 3, dtype=torch.int64), rows_of(3))
    assert maps.shape == (2, 3, 4, 4)
    assert method.objective(data, [5, 6]).shape == (2, 2)


@pytest.mark.parametrize(("count", "title"), [(4, "L-CAM-Img (short training)"), (10, "L-CAM-Img"), (99, "L-CAM-Img")])
def test_the_title_says_whether_all_images_were_used(count, title, images):
    classifier = Classifier(Small(), random_head(2, 6)).eval()
    data = data_of(classifier, images.repeat(4, 1, 1, 1)[:10])
    settings = LCamImgSettings(images=count, epochs=1, batch_size=5)
    state = LCamImg(classifier, settings).fit(data, [5, 6])
    assert LCamImg.title_of(state) == LCamImg.title_of({name: tensor[1:] for name, tensor in state.items()}) == title
    assert LCamImg.title_of(None) == "L-CAM-Img"
    assert LCamFm.title_of(LCamFm(classifier).fit(data, [5, 6])) == "L-CAM-Fm"


# -- maps


def test_maps_are_the_logits_of_the_target_class_scaled_to_one():
    features = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    state = {"weight": torch.randn(2, 3, 5), "bias": torch.randn(2, 3)}
    targets = torch.tensor([[0, 2], [1, 1]])
    maps = class_maps(state, features, targets)
    assert maps.shape == (2, 2, 3, 4)
    for run in range(2):
        for image in range(2):
            k = targets[run, image]
            logits = np.einsum("chw,c->hw", features[image], state["weight"][run, k]) + state["bias"][run, k].item()
            np.testing.assert_allclose(maps[run, image], (logits - logits.min()) / np.ptp(logits), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.7, -300.0])
def test_a_constant_map_is_zero_everywhere(value):
    features = torch.full((2, 5, 3, 4), value)
    features[1, 2, 1, 1] += 1
    state = {"weight": torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0)), "bias": torch.ones(1, 3)}
    state["weight"][0, 1, 2] = 1
    maps = class_maps(state, features, torch.tensor([[1, 1]]))
    assert not maps[0, 0].any()
    assert maps[0, 1].sum() == maps[0, 1, 1, 1] == 1


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LCamFm, LCamSettings(epochs=2, batch_size=2)),
        (LCamFm, LCamSettings(epochs=2, batch_size=2, masking="diagonal")),
        (LCamImg, LCamImgSettings(epochs=2, batch_size=2)),
        (LCamImg, LCamImgSettings(epochs=2, batch_size=2, background="mean", runs=1)),
    ],
)
def test_they_keep_the_promises_of_learned_methods(kind, settings, classifier, images, targets):
    method, data = kind(classifier, settings), data_of(classifier, images)
    runs = method.fitted_runs
    check_learned(method, data, [5, 6][:runs])
    assert method.state["losses"].shape == (runs, 2)
    check_explainer(method.run(runs - 1), images, targets)


@pytest.mark.parametrize("kind", [LCamFm, LCamImg])
def test_they_can_be_fitted_to_a_random_classifier_with_scaled_features(kind, classifier, images, targets):
    one = classifier.run(0)
    data = data_of(one, images)
    maps = retrained_maps(lambda model: kind(model, kind.Settings(epochs=1)), [one, one], [data, data], 1, images, targets, rows_of(3))  # fmt: skip
    assert maps.shape == (2, 3, 16)
    np.testing.assert_array_equal(maps[0], maps[1])


# -- trained or not


def test_the_best_constant_mask_is_the_best_of_the_eleven_values():
    classifier = Classifier(Small(), random_head(1, 6)).eval()
    images = torch.randint(0, 256, (6, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    data = data_of(classifier, images)
    labels = predictions(classifier, data)[0][0, 0]
    state = {"weight": torch.zeros(1, 3, 6), "bias": torch.full((1, 3), 20.0)}
    for kind, settings in ((LCamFm, LCamSettings(batch_size=4)), (LCamImg, LCamImgSettings(batch_size=4))):
        method, values = kind(classifier, settings).load(state), []
        for constant in CONSTANTS:
            total = 0.0
            for rows in ([0, 1, 2, 3], [4, 5]):
                x = as_maps(data.features[0][rows].float(), (4, 4))
                scores = classifier.logits(x * constant) if kind is LCamFm else classifier(images[rows] * constant)
                mask = torch.full((4, 4), constant)
                loss = 1.5 * cross_entropy(scores[0], labels[rows])
                total += len(rows) / 6 * (loss + 2 * area(mask) + 0.01 * len(rows) * smoothness(mask)).item()
            values.append(total)
        value, constant = method.objective(data, [0])[0].tolist()
        assert constant == pytest.approx(min(values), rel=1e-4)
        assert value == pytest.approx(
            values[-1], rel=1e-4
        )  # sigmoid(20) is 1: a constant mask is no better than itself
        assert not value < constant
