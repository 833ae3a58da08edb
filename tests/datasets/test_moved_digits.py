"""Moved digits: reproducible, from sources of their split and class, centred, and as large as MNIST's."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from bla.datasets import moved_digits
from bla.datasets.moved_digits import generate, source_split


def test_an_image_depends_on_its_number_but_not_on_the_number_of_images():
    few, many = generate((3, 8), 10, "train", 0), generate((3, 8), 30, "train", 0)
    assert np.array_equal(few[0], many[0][:10])
    assert many[1].tolist() == [0, 1] * 15
    others = [generate((3, 8), 10, split, seed)[0] for split, seed in (("test", 0), ("train", 1))]
    assert not any((other == few[0]).all(axis=(1, 2)).any() for other in others)
    assert few[0].shape == (10, 28, 28)
    assert few[0].dtype == np.uint8


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_drawn_from_the_sources_of_their_split_and_class(split, monkeypatch):
    seen = []

    def look(source, *arguments, **options):
        seen.append(source)
        return ndimage.affine_transform(source, *arguments, **options)

    monkeypatch.setattr(moved_digits, "affine_transform", look)
    generate((3, 8), 40, split, 0)
    data = load_digits()
    allowed = [[data.images[i] for i in source_split()[split] if data.target[i] == digit] for digit in (3, 8)]
    for number, source in enumerate(seen):
        assert any(np.array_equal(source, one) for one in allowed[number % 2])


def test_an_unmoved_digit_is_centred_and_2_5_times_as_large(monkeypatch):
    for name in ("LARGEST_TURN", "LARGEST_SHIFT", "LARGEST_SCALING"):
        monkeypatch.setattr(moved_digits, name, 0)
    sources = []
    monkeypatch.setattr(
        moved_digits, "affine_transform", lambda s, *a, **o: sources.append(s) or ndimage.affine_transform(s, *a, **o)
    )
    images, _ = generate((3, 8), 20, "train", 0)
    for image, source in zip(images, sources, strict=True):
        wanted = (np.array(ndimage.center_of_mass(source)) - 3.5) * 2.5 + 13.5
        np.testing.assert_allclose(ndimage.center_of_mass(image), wanted, atol=0.3)
        assert image.max() > 240
        assert max(image[0].max(), image[-1].max(), image[:, 0].max(), image[:, -1].max()) < 10
