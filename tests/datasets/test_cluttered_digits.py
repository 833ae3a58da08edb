"""Cluttered digits: split by sources, reproducible images, masks on the digit, no leak of the label."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bla.base.specs import ClutteredDigits
from bla.datasets import cluttered_digits
from bla.datasets.cluttered_digits import generate, handwritten, source_split

TEN = ClutteredDigits(
    kind="cluttered_digits",
    classes=tuple(range(10)),
    train_images=60,
    test_images=40,
    image_size=48,
    digit_size=24,
    fragments=4,
    fragment_size=10,
)
TWO = replace(TEN, classes=(3, 8))
DIGITS = load_digits().target


def test_every_source_is_in_exactly_one_split():
    train, test = (source_split()[split].tolist() for split in ("train", "test"))
    assert sorted(train + test) == list(range(1797))


def test_a_fifth_of_each_class_is_for_testing():
    counts = np.bincount(DIGITS).tolist()
    assert np.bincount(DIGITS[source_split()["test"]]).tolist() == [round(0.2 * count) for count in counts]


def test_3_vs_8_has_357_sources():
    assert np.bincount(DIGITS)[[3, 8]].tolist() == [183, 174]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("spec", [TEN, TWO], ids=["ten", "two"])
def test_digits_come_from_sources_of_their_split_and_class(spec, split):
    data = generate(spec, split, seed=0)
    sources = [int(source) for source in data.sources]
    assert set(sources) <= set(source_split()[split].tolist())
    assert [spec.classes[label] for label in data.labels] == DIGITS[sources].tolist()


@pytest.mark.parametrize("split", ["train", "test"])
def test_fragments_come_from_sources_of_their_split(split, monkeypatch):
    drawn = record_sources(monkeypatch)
    generate(TWO, split, seed=0)
    assert {source for source, _, _ in drawn} <= set(source_split()[split].tolist())


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_i_does_not_depend_on_how_many_are_drawn(split):
    many = generate(TEN, split, seed=3)
    few = generate(replace(TEN, train_images=20, test_images=20), split, seed=3)
    for name in ("images", "labels", "masks"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:20])
    assert few.sources == many.sources[:20]


def test_seed_and_split_change_every_image():
    spec = replace(TEN, train_images=20, test_images=20)
    sets = [generate(spec, split, seed).images for split, seed in (("train", 0), ("train", 1), ("test", 0))]
    assert len({image.tobytes() for images in sets for image in images}) == 60


@pytest.mark.parametrize(("split", "count"), [("train", 60), ("test", 40)])
def test_shapes_types_and_balance(split, count):
    data = generate(TEN, split, seed=0)
    assert (data.images.shape, data.images.dtype) == ((count, 48, 48, 3), np.uint8)
    assert (data.masks.shape, data.masks.dtype) == ((count, 1, 48, 48), np.bool_)
    assert (data.labels.dtype, len(data.sources)) == (np.int64, count)
    assert np.bincount(data.labels).tolist() == [count // 10] * 10


@pytest.mark.parametrize("spec", [TEN, replace(TEN, image_size=32, digit_size=8, fragments=0, fragment_size=8)])
def test_masks_fill_no_more_than_a_digit(spec):
    for mask in generate(spec, "train", seed=0).masks[:, 0]:
        rows, columns = np.nonzero(mask)
        assert len(rows) > 0
        assert max(np.ptp(rows), np.ptp(columns)) < spec.digit_size


def test_the_digit_can_be_as_large_as_the_image():
    spec = replace(TEN, image_size=32, digit_size=32, fragment_size=32, train_images=10)
    assert generate(spec, "train", seed=0).masks.any((1, 2, 3)).all()


def test_under_the_mask_the_image_differs_from_the_background():
    data = generate(replace(TEN, fragments=0), "train", seed=0)
    for image, mask in zip(data.images.mean(3), data.masks[:, 0], strict=True):
        rows, columns = np.nonzero(mask)
        box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        ground = image[box][~mask[box]].mean()
        assert abs(image[mask].mean() - ground) > 0.1 * 255


def record_sources(monkeypatch):
    """Make `generate` report (source, image, whole) for every piece of ink; the ink of a source is its number."""
    monkeypatch.setattr(cluttered_digits, "AT_ONCE", 10_000)  # in this process
    drawn, paint, images = [], cluttered_digits._paint, Counter()
    numbers = np.arange(1, 1798, dtype=np.float32)[:, None, None]
    monkeypatch.setattr(cluttered_digits, "_inks", lambda size: np.broadcast_to(numbers, (1797, size, size)))
    monkeypatch.setattr(cluttered_digits, "_fade", lambda size: np.ones((size, size), np.float32))

    def spy(canvas, ink, rng):
        whole = len(ink) == TEN.digit_size
        drawn.append((int(ink[0, 0]) - 1, images["drawn"], whole))
        images["drawn"] += whole
        return paint(canvas, ink / 2000, rng)

    monkeypatch.setattr(cluttered_digits, "_paint", spy)
    return drawn


def test_fragments_are_drawn_from_all_classes_independently_of_the_label(monkeypatch):
    drawn = record_sources(monkeypatch)
    labels = generate(replace(TWO, train_images=400), "train", seed=0).labels
    table = np.zeros((2, 10), int)
    for source, image, whole in drawn:
        if not whole:
            table[labels[image], DIGITS[source]] += 1
    assert table.sum() == 400 * TWO.fragments
    assert table.min() > 40  # of 80
    assert chi2_contingency(table).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("spec", [TEN, TWO], ids=["ten", "two"])
def test_colours_do_not_predict_the_class(spec):
    spec = replace(spec, train_images=1000, test_images=500)
    train, test = (generate(spec, split, seed=0) for split in ("train", "test"))

    def colours(data):
        flat = data.images.reshape(len(data.images), -1, 3).astype(float)
        return np.concatenate([flat.mean(1), flat.var(1)], axis=1)

    scale = StandardScaler().fit(colours(train))
    model = LogisticRegression(max_iter=500).fit(scale.transform(colours(train)), train.labels)
    right, chance = (model.predict(scale.transform(colours(test))) == test.labels).sum(), 1 / len(spec.classes)
    assert right < 500 * chance + 4 * np.sqrt(500 * chance * (1 - chance))


def test_the_handwritten_digits_are_those_of_scikit_learn():
    images, labels = handwritten()
    np.testing.assert_array_equal(images, load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)
