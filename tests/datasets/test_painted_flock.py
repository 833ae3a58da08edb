"""Painted flocks: labels are the birds that are seen, each with its own mask."""

from dataclasses import replace

import numpy as np
import pytest

from bla.base.specs import PaintedFlock
from bla.datasets.painted_birds import BODIES
from bla.datasets.painted_flock import flock_species, generate

SPEC = PaintedFlock(kind="painted_flock", species=4, birds=(0, 3), train_images=24, test_images=8, image_size=64, bird_size=(0.32, 0.42), leaves=3, loose_parts=0, noise=0)  # fmt: skip


@pytest.fixture(scope="module")
def flock():
    return generate(SPEC, "train", 0)


def test_a_label_is_a_bird_that_is_seen(flock):
    assert flock.labels.dtype == bool
    assert flock.labels.shape == (24, 4)
    assert flock.masks.any(axis=(2, 3)).tolist() == flock.labels.tolist()
    assert (flock.masks.sum(axis=1) <= 1).all()  # no pixel shows two birds
    shares = flock.masks[flock.labels].mean(axis=(1, 2))
    assert shares.min() > 0.02
    assert shares.max() < 0.15


def test_there_are_as_many_birds_as_the_settings_say(flock):
    assert set(flock.labels.sum(axis=1)) == {0, 1, 2, 3}
    two = generate(replace(SPEC, birds=(2, 2), train_images=6), "train", 0)
    assert set(two.labels.sum(axis=1)) == {2}


def test_species_differ_in_colour_beak_and_tail(flock):
    kinds = list(flock_species(SPEC).values())
    for part in (0, 2, 3):
        assert len({bird[part] for bird in kinds}) == 4
    assert flock.mask_names == tuple(flock_species(SPEC))
    assert len(set(flock_species(replace(SPEC, species=16)))) == 16


def test_a_mask_shows_the_colour_of_its_species(flock):
    for label, (*_, colour) in enumerate(flock_species(SPEC).values()):
        pixels = [image[mask[label]] for image, mask in zip(flock.images, flock.masks, strict=True) if mask[label].any()]  # fmt: skip
        seen = np.concatenate(pixels).astype(float)
        bodies = np.array(BODIES, float)
        directions = bodies / np.linalg.norm(bodies, axis=1, keepdims=True)  # light changes lengths alone
        nearest = (seen / np.linalg.norm(seen, axis=1, keepdims=True) @ directions.T).argmax(axis=1)
        assert np.bincount(nearest, minlength=4).argmax() == colour


def test_an_image_depends_on_its_number_alone(flock):
    again = generate(replace(SPEC, train_images=5), "train", 0)
    assert (again.images == flock.images[:5]).all()
    assert (generate(SPEC, "test", 0).images[:3] != flock.images[:3]).any()
    with_validation = replace(SPEC, validation_images=4)
    validation = generate(with_validation, "validation", 0)
    others = [name for split in ("train", "test") for name in generate(SPEC, split, 0).sha256]
    assert len(set(validation.sha256) - set(others)) == len(validation.images) == 4
