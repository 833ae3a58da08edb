"""Maps made elsewhere are measured like ours; maps that do not fit are errors."""

import numpy as np
import pandas as pd
import pytest
import torch
from own_classifier.conftest import LABELS, TRANSFORM, trained
from PIL import Image
from scipy.ndimage import zoom
from wrong_arrays import DAMAGED, NPZ

import bla
from bla.base.errors import BlaError


@pytest.fixture(scope="module")
def record(own, photos):
    return bla.explain(own, photos, ["cam", "random"], progress=False)


@pytest.fixture(scope="module")
def table(own, record):
    return bla.score(own, record)


def values(table, method):
    return table[table["method"] == method].set_index(["metric", "image"])["value"]


@pytest.mark.parametrize("naming", ["{name}.npy", "{stem}.npy"])
@pytest.mark.parametrize("factor", [1, 16])
def test_our_maps_from_files_have_our_scores(own, record, table, tmp_path, naming, factor):
    for name, values_of_image in zip(record.names, record.results["cam"].maps[0], strict=True):
        path = tmp_path / naming.format(name=name, stem=name.removesuffix(".png"))
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.kron(values_of_image, np.ones((factor, factor))))
    theirs = values(bla.score(own, record, {"theirs": tmp_path}), "theirs")
    assert theirs.to_dict() == pytest.approx(values(table, "cam").to_dict(), abs=1e-6)


def test_the_metrics_by_hand(record, table, photos):
    """Accuracy on the mean of the 2 most important of 15 cells, for CAM."""
    model = trained()
    for number, name in enumerate(record.names):
        with torch.no_grad():
            features = model.body(TRANSFORM(Image.open(photos / name).convert("RGB"))[None])[0].flatten(1).T
            cells = torch.tensor(record.results["cam"].maps[0, number].ravel()).topk(2).indices
            right = model.head(features[cells].mean(dim=0)).argmax() == record.expected[number]
        assert values(table, "cam")["accuracy_features", name] == float(right)
    assert bla.summary(table).loc["accuracy, a sixth of the cells pooled", "better"] == "higher"


def test_accuracy_needs_the_true_classes_and_curves_can_be_left_out(own, photos):
    image = Image.open(photos / "cat/0.png")
    record = bla.explain(own, image, ["cam"], progress=False)
    metrics = set(bla.score(own, record)["metric"])
    assert {"deletion_black", "insertion_blur", "average_drop_50"} <= metrics
    assert not {"accuracy_features", "loss_image"} & metrics
    assert "deletion_black" not in set(bla.score(own, record, curves=False)["metric"])


def test_masks_add_localisation(own, record):
    masks = np.zeros((6, 48, 80), bool)
    masks[:, :16, :16] = True
    table = bla.score(own, record, masks=masks, curves=False)
    for number, name in enumerate(record.names):
        hard = record.results["cam"].hard[0, number]
        assert values(table, "cam")["precision", name] == hard[0, 0] / hard.sum()
    with pytest.raises(BlaError, match="masks must be bool"):
        bla.score(own, record, masks=masks.transpose(0, 2, 1))


def with_nan(table, method, metric, images):
    """The scores with NaN for some images of one method and metric; for all methods if it is None."""
    which = (table["metric"] == metric) & table["image"].isin(images)
    return table.assign(value=table["value"].mask(which if method is None else which & (table["method"] == method)))


def test_means_are_over_the_same_images_for_every_method(table, record):
    means, title = bla.summary(table), "deletion, black"
    for method in ("cam", "random"):
        assert means.loc[title, method] == pytest.approx(values(table, method)["deletion_black"].mean())
    lacking = bla.summary(with_nan(table, "cam", "deletion_black", record.names[:1]))
    assert np.isnan(lacking.loc[title, "cam"])
    pd.testing.assert_frame_equal(lacking.drop(index=title), means.drop(index=title))
    assert lacking.loc[title, "random"] == means.loc[title, "random"]
    for count in (1, 5):  # no method has a score for these images
        some = bla.summary(with_nan(table, None, "deletion_black", record.names[:count]))
        for method in ("cam", "random"):
            rest = values(table, method)["deletion_black"][list(record.names[count:])]
            assert some.loc[title, method] == pytest.approx(rest.mean())


@pytest.mark.parametrize("constant", [0.0, -1.0])
def test_a_map_without_positive_weight_has_no_mean_of_the_weight_inside(own, record, constant):
    masks = np.ones((6, 48, 80), bool)
    maps = {"all": [GOOD] * 6, "some": [GOOD, constant * GOOD, *[GOOD] * 4], "none": [constant * GOOD] * 6}
    means = bla.summary(bla.score(own, record, maps, masks=masks, curves=False)).loc["weight inside"]
    assert means["all"] == 1
    assert np.isnan([means["some"], means["none"]]).all()


def test_several_runs_have_their_mean(own, photos):
    fitted = bla.fit(own, photos, "bla_ph", runs=2, epochs=2, learning_rate=0.1, progress=False)
    both = bla.score(own, bla.explain(own, photos, [fitted], progress=False), curves=False)
    single = []
    for run in range(2):
        state = {name: value[run : run + 1] for name, value in fitted.state.items()}
        one = bla.FittedMethod(fitted.method, state, fitted.fingerprint)
        single.append(values(bla.score(own, bla.explain(own, photos, [one], progress=False), curves=False), "bla_ph"))
    assert values(both, "bla_ph").to_dict() == pytest.approx(((single[0] + single[1]) / 2).to_dict())


GOOD = np.ones((3, 5))
WRONG = {
    "transposed": (np.ones((80, 48)), "80 x 48 does not fit inputs of 48 x 80 pixels with 3 x 5 cells"),
    "transposed cells": (np.ones((5, 3)), "5 x 3 does not fit"),
    "too coarse": (np.ones((2, 3)), "2 x 3 does not fit"),
    "square": (np.ones((48, 48)), "48 x 48 does not fit"),
    "of the file": (np.ones((90, 70)), "90 x 70 does not fit"),
    "colours": (np.ones((48, 80, 3)), "must be .height, width."),
    "flat": (np.ones(15), "must be .height, width."),
    "words": (np.full((3, 5), "a"), "of numbers"),
    "NaN": (np.full((3, 5), np.nan), "NaN"),
    "infinite": (np.full((48, 80), np.inf), "NaN or infinite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_maps_that_do_not_fit_are_errors(own, record, name):
    values_of_image, message = WRONG[name]
    with pytest.raises(BlaError, match=f"theirs: cat/1.png.*{message}"):
        bla.score(own, record, {"theirs": [GOOD, values_of_image, *[GOOD] * 4]})


def test_resolutions_that_fit(own, record):
    smooth = [zoom(np.random.default_rng(0).random((3, 5)), 7, order=1) for _ in record.names]
    bla.score(own, record, {"ints": np.ones((6, 48, 80), int), "grid": [GOOD] * 6, "finer": smooth}, curves=False)


def test_missing_and_damaged_files(own, record, photos, tmp_path):
    with pytest.raises(BlaError, match=r"no map of cat/0.png; it must be named cat/0.png.npy or cat/0.npy"):
        bla.score(own, record, {"theirs": tmp_path})
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/0.npy").write_bytes(b"nothing")
    with pytest.raises(BlaError, match=r"cat/0.npy: not a readable"):
        bla.score(own, record, {"theirs": tmp_path})
    np.save(tmp_path / "cat/0.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BlaError, match=r"cat/0.npy: not a readable"):
        bla.score(own, record, {"theirs": tmp_path})
    with pytest.raises(BlaError, match="5 maps for 6 images"):
        bla.score(own, record, {"theirs": [GOOD] * 5})
    with pytest.raises(BlaError, match="cam: the record has a method of this name"):
        bla.score(own, record, {"cam": [GOOD] * 6})
    with pytest.raises(BlaError, match="no maps"):
        bla.score(own, bla.explain(own, photos, [], progress=False))


@pytest.mark.parametrize("kind", NPZ | DAMAGED)
def test_several_arrays_or_a_damaged_file_in_place_of_a_map_are_refused(kind, own, record, tmp_path):
    (tmp_path / "cat").mkdir()
    (NPZ | DAMAGED)[kind](tmp_path / "cat/0.npy")
    reason = r"holds several arrays \(\.npz\), not one" if kind in NPZ else ".+"
    message = rf"cat/0.npy: not a readable .npy file of numbers \({reason}\); save it again with numpy.save"
    with pytest.raises(BlaError, match=message):
        bla.score(own, record, {"theirs": tmp_path})


def test_a_record_of_another_classifier_is_refused(record):
    other = bla.wrap(trained(), bla.Transform(size=(48, 64)), LABELS)
    with pytest.raises(BlaError, match="another classifier"):
        bla.score(other, record)
