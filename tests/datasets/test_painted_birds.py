"""Painted birds: species, masks, independence of draws, and scenes painted anew without a part."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from bla.base.specs import PaintedBirds
from bla.datasets.painted_birds import (
    KINDS,
    PARTS,
    class_names,
    generate,
    outline,
    paint,
    scenes,
    species,
    with_kind,
    without_each_part,
)

SPEC = PaintedBirds(
    kind="painted_birds",
    train_images=32,
    test_images=18,
    image_size=96,
    bird_size=(0.3, 0.5),
    leaves=6,
    loose_parts=4,
    noise=0.03,
)
PAIR = replace(SPEC, differ_in="beak")
SCENES = scenes(SPEC, "test", 7)


def test_any_two_of_a_species_features_tell_it_and_one_alone_does_not():
    rows = species(SPEC.differ_in)
    assert len(set(rows)) == 16
    for one, other in combinations(range(4), 2):
        assert len({(row[one], row[other]) for row in rows}) == 16
    for place in range(4):
        assert Counter(row[place] for row in rows) == dict.fromkeys(range(4), 4)
    assert len(set(class_names(SPEC.differ_in))) == 16


@pytest.mark.parametrize("part", ["beak", "wing", "tail"])
def test_the_species_of_a_pair_differ_in_one_part_alone(part):
    spec = replace(SPEC, differ_in=part)
    one, other = species(spec.differ_in)
    assert [name for name, x, y in zip(KINDS, one, other, strict=True) if x != y] == [part]
    assert set(class_names(spec.differ_in)) < set(KINDS[part])


@pytest.mark.parametrize("part", PARTS)
def test_a_scene_without_a_part_is_the_same_outside_its_outline_and_has_no_mask_of_it(part):
    place, changed = PARTS.index(part), 0
    for scene in SCENES[:6]:
        (image, masks), (less, fewer) = paint(scene), paint(scene, without=part)
        differs = (image != less).any(axis=2)
        assert not (differs & ~outline(scene, part)).any()
        assert not fewer[place].any()
        changed += (differs & masks[place]).sum() / masks[place].sum()
    assert changed / 6 > 0.9  # what lies behind a part almost always has another colour


@pytest.mark.parametrize(("part", "kind"), [("beak", 3), ("wing", 2), ("tail", 1)])
def test_a_scene_with_another_kind_of_a_part_is_the_same_outside_both_outlines(part, kind):
    for scene in SCENES[:6]:
        other = with_kind(scene, part, kind)
        differs = (paint(scene)[0] != paint(other)[0]).any(axis=2)
        assert not (differs & ~outline(scene, part) & ~outline(other, part)).any()
        assert differs.any() == (scene.kinds != other.kinds)


def test_what_lies_behind_a_wing_is_the_body():
    scene = SCENES[0]
    (_, masks), (_, fewer) = paint(scene), paint(scene, without="wing")
    wing, body = PARTS.index("wing"), PARTS.index("body")
    assert (fewer[body] & masks[wing]).sum() > 0.3 * masks[wing].sum()
    assert (fewer[body] >= masks[body]).all()


def test_the_masks_of_parts_do_not_overlap_and_lie_inside_their_outlines():
    for scene in SCENES:
        _, masks = paint(scene)
        assert masks.sum(axis=0).max() == 1
        assert not any((masks[place] & ~outline(scene, part)).any() for place, part in enumerate(PARTS))


def test_the_repainted_scenes_are_those_of_paint():
    images = without_each_part(SCENES[:3])
    assert images.shape == (6, 3, 96, 96, 3)
    for place, part in enumerate(PARTS):
        for number in range(3):
            np.testing.assert_array_equal(images[place, number], paint(SCENES[number], without=part)[0])


def test_images_depend_on_seed_split_and_number_alone():
    split = generate(SPEC, "test", 7)
    np.testing.assert_array_equal(split.images[5], paint(SCENES[5])[0])
    more = generate(replace(SPEC, test_images=40, train_images=16), "test", 7)
    np.testing.assert_array_equal(more.images[:18], split.images)
    every = [generate(SPEC, name, seed) for name, seed in (("train", 7), ("test", 7), ("test", 8))]
    every.append(generate(replace(SPEC, validation_images=20), "validation", 7))
    hashes = [name for part in every for name in part.sha256]
    assert len(set(hashes)) == len(hashes) == 32 + 18 + 18 + 20
    assert split.labels.tolist() == [*range(16), 0, 1]
    assert split.mask_names == PARTS


def test_things_around_a_bird_do_not_depend_on_its_species():
    for scene in scenes(PAIR, "test", 7)[:6]:
        other = with_kind(scene, "beak", 2 - scene.kinds[0])
        bare, bare_too = (paint(each, without="beak")[0] for each in (scene, other))
        np.testing.assert_array_equal(bare, bare_too)


def test_without_a_field_of_noise_an_image_has_the_colours_of_its_bird():
    scene = replace(SCENES[0], spec=replace(SPEC, noise=0, leaves=0, loose_parts=0))
    image, masks = paint(scene)
    body = image[masks[PARTS.index("body")]].astype(float)
    assert body.std(axis=0).max() < 25  # one colour, under light that changes from left to right
