"""Painted flocks: images with several birds of different species, or none; labels are multi-hot, with a mask per species.

    spec = PaintedFlock(kind="painted_flock", species=4, birds=(0, 3), train_images=400, ...)
    test = generate(spec, "test", seed=0)
    test.labels  # bool (N, 4)
    test.masks   # bool (N, 4, H, W): what can be seen of each species' bird, empty where it is absent

Birds, fields, leaves and loose parts are those of `bla.datasets.painted_birds`. Each bird stands in a quarter of its
own; where two of them meet, the later one lies on top.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from bla.base.specs import PaintedFlock
from bla.datasets import Split, drawn
from bla.datasets.painted_birds import (
    FINE,
    Kinds,
    Painted,
    Scene,
    canvas,
    class_names,
    finished,
    paint_split,
    placed_bird,
    shown_parts,
    species,
)

QUARTERS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
"""Where birds stand, as shares of the width and the height."""
SHIFT = 0.06
"""How far a bird may be from the middle of its quarter, as a share of the side."""


def flock_species(spec: PaintedFlock) -> dict[str, Kinds]:
    """The kinds of each species by name, by label: evenly spread over the sixteen, so that few species differ in much."""
    every, names = species(None), class_names(None)
    chosen = [label * len(every) // spec.species for label in range(spec.species)]
    return {names[number]: every[number] for number in chosen}


def labels_of(scene: Scene) -> list[int]:
    """The species in a scene, in the order in which they are painted."""
    assert isinstance(scene.spec, PaintedFlock)
    rng = scene.draws("species")
    least, most = scene.spec.birds
    return [int(label) for label in rng.permutation(scene.spec.species)[: rng.integers(least, most + 1)]]


def paint(scene: Scene) -> Painted:
    """An image `[H, W, 3]` and the masks of all species `[K, H, W]`, where at least half of a pixel shows the bird."""
    assert isinstance(scene.spec, PaintedFlock)
    image, kinds = canvas(scene), list(flock_species(scene.spec).values())
    numbers = Image.new("L", image.size)
    brush, pen = ImageDraw.Draw(image), ImageDraw.Draw(numbers)
    side, rng = scene.spec.image_size * FINE, scene.draws("places")
    quarters = rng.permutation(len(QUARTERS))
    for place, label in enumerate(labels_of(scene)):
        length = side * rng.uniform(*scene.spec.bird_size) / 0.8  # most birds are 0.8 of their nominal length
        turn, mirrored = rng.uniform(-20, 20), bool(rng.random() < 0.5)
        margin = length * np.array([0.55, 0.42])
        middle = np.array(QUARTERS[quarters[place]]) + rng.uniform(-SHIFT, SHIFT, 2)
        x, y = np.clip(middle * side, margin, side - margin)
        own = Scene(spec=scene.spec, kinds=kinds[label], seed=scene.seed, split=scene.split, number=scene.number)
        for shapes in placed_bird(own, length, turn, mirrored, (x, y), f"bird {place} ").values():
            for colour, points in shapes:
                brush.polygon(points, fill=colour)
                pen.polygon(points, fill=1 + label)
    return finished(scene, image), shown_parts(numbers, scene.spec.species)


def generate(spec: PaintedFlock, split: str, seed: int) -> Split:
    """Paint a split, which may also be "validation"; image i depends on (seed, split, i) and the settings alone."""
    count = {"train": spec.train_images, "test": spec.test_images}.get(split, spec.validation_images)
    assert count is not None
    todo = [Scene(spec=spec, kinds=(), seed=seed, split=split, number=number) for number in range(count)]
    images, masks = paint_split(_paint_all, todo, spec.species)
    labels = np.zeros((count, spec.species), np.bool_)
    for row, scene in zip(labels, todo, strict=True):
        row[labels_of(scene)] = True
    return drawn(images, labels, masks, [f"{split} {i}" for i in range(count)], tuple(flock_species(spec)))


def _paint_all(todo: Sequence[Scene]) -> list[Painted]:
    return [paint(scene) for scene in todo]
