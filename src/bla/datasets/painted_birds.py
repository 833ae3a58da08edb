"""Painted birds: sixteen species of birds that differ in beak, wing, tail and colour, on a confusing background.

A species is a row of an orthogonal array: each part has four kinds, every kind belongs to four species, and any two
parts tell the species while one alone does not. Loose parts of any kind lie around the bird, independent of its
species, so the parts that occur somewhere in an image do not tell it either. In a *pair*, two species differ in one
part alone, the only place that can decide.

    spec = PaintedBirds(kind="painted_birds", train_images=1600, test_images=480, image_size=224)
    test = generate(spec, "test", seed=0)
    test.masks.shape  # (480, 6, 224, 224): one mask for each of PARTS; their union is the bird
    scene = Scene(seed=0, split="test", number=7, kinds=species(spec.differ_in)[7], spec=spec)
    paint(scene, without="beak")  # what lies behind the beak is seen; every other pixel is the same

The field, every leaf, every loose part, the pose, the noise and every part of the bird have a seed of their own. So a
scene without a part, or with another kind of it, is painted anew from the same draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from bla.base.specs import PaintedBirds, PaintedFlock
from bla.datasets import Split, drawn
from bla.runtime.processes import in_processes

PARTS = ("tail", "legs", "body", "head", "beak", "wing")
"""The parts of a bird, each painted over the ones before it."""
KINDS = {
    "beak": ("conebill", "needlebill", "hookbill", "spoonbill"),
    "wing": ("pointed_wing", "round_wing", "raised_wing", "ragged_wing"),
    "tail": ("fan_tail", "long_tail", "forked_tail", "square_tail"),
    "colour": ("green", "blue", "brown", "white"),
}
"""What distinguishes species. `colour` is that of body and head."""
FINE = 3
"""Images are painted this many times larger, then averaged, so that edges are smooth."""
AT_ONCE = 50
"""Images that a process paints at a time."""

Points = list[tuple[float, float]]
Colour = tuple[int, int, int]
Kinds = tuple[int, ...]
"""The kind of beak, wing, tail and colour."""
Painted = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""An image `[H, W, 3]` and its masks `[S, H, W]`."""


def _ellipse(x: float, y: float, width: float, height: float, start: float = 0, stop: float = 360) -> Points:
    """Points of an ellipse, or of a sector of it, around (x, y)."""
    return [
        (x + width * cos(radians(a)), y + height * sin(radians(a))) for a in np.linspace(start, stop, 40, endpoint=True)
    ]


# Outlines in a bird's own coordinates: the bird looks to the right, the body is around (0, 0), and one is its length.
Shape = tuple[Colour, Points]
BEAKS: tuple[Shape, ...] = (
    ((245, 140, 20), [(0.34, -0.25), (0.34, -0.10), (0.52, -0.15)]),
    ((35, 30, 40), [(0.34, -0.20), (0.34, -0.14), (0.70, -0.16)]),
    ((215, 30, 35), [(0.33, -0.26), (0.46, -0.25), (0.52, -0.16), (0.49, -0.03), (0.44, -0.13), (0.34, -0.10)]),
    ((250, 225, 210), [(0.34, -0.20), (0.50, -0.19), *_ellipse(0.60, -0.17, 0.08, 0.07, 200, 520), (0.34, -0.14)]),
)
WINGS: tuple[Shape, ...] = (
    ((245, 205, 35), [(0.15, -0.09), (0.03, 0.11), (-0.38, 0.07)]),
    ((205, 45, 45), _ellipse(-0.05, -0.01, 0.16, 0.11)),
    ((40, 85, 215), [(0.12, -0.02), (-0.13, -0.02), (-0.25, -0.36), (-0.02, -0.34)]),
    (
        (120, 50, 170),
        [(0.13, -0.10), (0.11, 0.09), (0.01, 0.02), (-0.06, 0.18), (-0.12, 0.03), (-0.26, 0.15), (-0.22, -0.06)],
    ),
)
TAILS: tuple[Shape, ...] = (
    ((25, 25, 30), [(-0.18, 0.00), *_ellipse(-0.20, 0.00, 0.30, 0.26, 145, 225)]),
    ((240, 240, 235), [(-0.20, -0.05), (-0.20, 0.05), (-0.72, 0.17), (-0.70, 0.05)]),
    ((15, 120, 95), [(-0.20, -0.07), (-0.54, -0.18), (-0.40, 0.01), (-0.56, 0.19), (-0.20, 0.08)]),
    ((235, 95, 40), [(-0.20, -0.09), (-0.40, -0.12), (-0.42, 0.11), (-0.20, 0.10)]),
)
SHAPES = {"beak": BEAKS, "wing": WINGS, "tail": TAILS}
BODIES: tuple[Colour, ...] = ((60, 150, 75), (70, 125, 205), (135, 95, 60), (238, 238, 232))
LEG, PUPIL, EYE = (90, 70, 50), (10, 10, 10), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that decides an image: the species' kinds, and the seed of all draws."""

    spec: PaintedBirds | PaintedFlock
    kinds: Kinds
    seed: int
    split: str
    number: int

    def draws(self, what: str) -> np.random.Generator:
        """The random numbers of one thing in this scene."""
        return np.random.default_rng([self.seed, self.number, *self.split.encode(), *what.encode()])


def species(differ_in: str | None) -> list[Kinds]:
    """The kinds of each species, by label: 16 rows of an orthogonal array, or two that differ in one part alone."""
    if differ_in is not None:
        place, first = list(KINDS).index(differ_in), (0, 0, 0, 0)
        return [first, (*first[:place], 2, *first[place + 1 :])]
    # Sums and products in the field of four elements: adding is exclusive or, multiplying by 2 maps 0 1 2 3 to 0 2 3 1.
    twice = (0, 2, 3, 1)
    return [(a, b, a ^ b, a ^ twice[b]) for a in range(4) for b in range(4)]


def class_names(differ_in: str | None) -> list[str]:
    """Colour and beak, which tell the species of the sixteen; of a pair, the kinds of the part in which it differs."""
    if differ_in is not None:
        place = list(KINDS).index(differ_in)
        return [KINDS[differ_in][kinds[place]] for kinds in species(differ_in)]
    return [f"{KINDS['colour'][colour]}_{KINDS['beak'][beak]}" for beak, _, _, colour in species(None)]


def bird(kinds: Kinds) -> dict[str, list[Shape]]:
    """The coloured outlines of each part of a bird, in its own coordinates."""
    beak, wing, tail, colour = kinds
    legs: list[Shape] = [
        (LEG, [(x, 0.10), (x + 0.025, 0.10), (x + 0.005, 0.32), (x + 0.06, 0.36), (x - 0.05, 0.36), (x - 0.02, 0.32)])
        for x in (-0.08, 0.04)
    ]
    head: list[Shape] = [
        (BODIES[colour], _ellipse(0.27, -0.17, 0.12, 0.11)),
        (EYE, _ellipse(0.31, -0.19, 0.033, 0.033)),
        (PUPIL, _ellipse(0.315, -0.19, 0.018, 0.018)),
    ]
    body: list[Shape] = [(BODIES[colour], [*_ellipse(0, 0, 0.28, 0.17, 0, 300), (0.24, -0.22), (0.30, -0.10)])]
    return {
        "tail": [TAILS[tail]],
        "legs": legs,
        "body": body,
        "head": head,
        "beak": [BEAKS[beak]],
        "wing": [WINGS[wing]],
    }


def _placed(points: Points, length: float, turn: float, mirrored: bool, at: tuple[float, float]) -> Points:
    """An outline in pixels: mirrored, turned by `turn` degrees, scaled to a bird's length, and moved to `at`."""
    c, s, side = cos(radians(turn)), sin(radians(turn)), -1 if mirrored else 1
    return [(at[0] + length * side * (c * x - s * y), at[1] + length * (s * x + c * y)) for x, y in points]


def _shaded(colour: Colour, rng: np.random.Generator) -> Colour:
    """A colour, a little lighter or darker."""
    light, tint = rng.uniform(0.85, 1.1), rng.normal(0, 6, 3)
    red, green, blue = (int(np.clip(light * c + t, 0, 255)) for c, t in zip(colour, tint, strict=True))
    return red, green, blue


def _field(scene: Scene) -> NDArray[np.float32]:
    """A smooth field of colours `[H, W, 3]`, 0 to 255: a 5 x 5 grid of colours, enlarged."""
    rng, side = scene.draws("field"), scene.spec.image_size
    grid = np.clip(rng.uniform(40, 200, 3) + rng.normal(0, 55, (5, 5, 3)), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC), np.float32)


def _background(scene: Scene) -> list[Shape]:
    """Leaves, twigs and loose parts in pixels of the fine image."""
    side = scene.spec.image_size * FINE
    shapes: list[Shape] = []
    for number in range(scene.spec.leaves):
        rng = scene.draws(f"leaf {number}")
        at, turn = tuple(rng.uniform(0, side, 2)), rng.uniform(0, 360)
        long = rng.uniform(0.08, 0.2) * side
        thin = rng.uniform(0.05, 0.12) if number % 3 == 2 else rng.uniform(0.25, 0.45)  # every third is a twig
        colour = tuple(rng.uniform((10, 30, 10), (120, 130, 80)).astype(int).tolist())
        shapes.append((colour, _placed(_ellipse(0, 0, 1, thin), long, turn, False, at)))
    for number in range(scene.spec.loose_parts):
        rng = scene.draws(f"loose part {number}")
        colour, points = SHAPES[list(SHAPES)[rng.integers(3)]][rng.integers(4)]
        x, y = np.mean(points, axis=0)
        centred = [(px - x, py - y) for px, py in points]
        length = side * rng.uniform(*scene.spec.bird_size) / 0.8
        at = tuple(rng.uniform(0, side, 2))
        shapes.append((_shaded(colour, rng), _placed(centred, length, rng.uniform(0, 360), rng.random() < 0.5, at)))
    return shapes


def _bird_in_place(scene: Scene) -> dict[str, list[Shape]]:
    """The bird's parts in pixels of the fine image."""
    rng, side = scene.draws("pose"), scene.spec.image_size * FINE
    length = side * rng.uniform(*scene.spec.bird_size) / 0.8  # most birds are 0.8 of their nominal length
    turn, mirrored = rng.uniform(-20, 20), rng.random() < 0.5
    margin = length * np.array([0.55, 0.42])
    at = rng.uniform(margin, side - margin)
    axis = rng.integers(2)  # next to one of the four sides, so that a map of the centre does not find the bird
    at[axis] = (margin[axis], side - margin[axis])[rng.integers(2)]
    return placed_bird(scene, length, turn, mirrored, (at[0], at[1]))


def placed_bird(
    scene: Scene, length: float, turn: float, mirrored: bool, at: tuple[float, float], which: str = ""
) -> dict[str, list[Shape]]:
    """The parts of a bird of the scene's kinds in pixels of the fine image; `which` tells its shades from other birds'."""
    parts: dict[str, list[Shape]] = {}
    for part, shapes in bird(scene.kinds).items():
        rng = scene.draws(f"{which}{part}")
        shade = rng.bit_generator.state  # one shade for the whole part
        parts[part] = []
        for colour, points in shapes:
            rng.bit_generator.state = shade
            parts[part].append((_shaded(colour, rng), _placed(points, length, turn, mirrored, at)))
    return parts


def paint(scene: Scene, *, without: str | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image `[H, W, 3]` and the masks of its `PARTS` `[6, H, W]`, where at least half of a pixel shows the part.

    Without a part, every pixel outside its `outline` is the same, and its mask is empty. For another kind of a part
    use `with_kind`.
    """
    image = canvas(scene)
    labels = Image.new("L", image.size)
    brush, pen = ImageDraw.Draw(image), ImageDraw.Draw(labels)
    for part, shapes in _bird_in_place(scene).items():
        for colour, points in shapes if part != without else ():
            brush.polygon(points, fill=colour)
            pen.polygon(points, fill=1 + PARTS.index(part))
    return finished(scene, image), shown_parts(labels, len(PARTS))


def canvas(scene: Scene) -> Image.Image:
    """The fine image of the scene without birds."""
    field = np.repeat(np.repeat(_field(scene).astype(np.uint8), FINE, axis=0), FINE, axis=1)
    image = Image.fromarray(field)
    brush = ImageDraw.Draw(image)
    for colour, points in _background(scene):
        brush.polygon(points, fill=colour)
    return image


def finished(scene: Scene, image: Image.Image) -> NDArray[np.uint8]:
    """The pixels `[H, W, 3]` of a fine image, reduced, lit from one side, and with noise."""
    side = scene.spec.image_size
    pixels = np.asarray(image.reduce(FINE), np.float32)
    left, right = scene.draws("light").uniform(0.75, 1.15, 2)
    light = np.linspace(left, right, side, dtype=np.float32)[None, :, None]
    noise = scene.draws("noise").standard_normal((side, side, 3), np.float32) * (255 * scene.spec.noise)
    return np.clip(pixels * light + noise + 0.5, 0, 255).astype(np.uint8)


def shown_parts(labels: Image.Image, count: int) -> NDArray[np.bool_]:
    """The masks `[count, H, W]` of a fine image with the number of each pixel's part, from 1 on."""
    shown = [labels.point([255 * (value == number) for value in range(256)]) for number in range(1, count + 1)]
    return np.stack([np.asarray(part.reduce(FINE)) > 127 for part in shown])


def outline(scene: Scene, part: str) -> NDArray[np.bool_]:
    """The pixels `[H, W]` that a part touches, hidden ones too."""
    side = scene.spec.image_size
    labels = Image.new("L", (side * FINE, side * FINE))
    for _, points in _bird_in_place(scene)[part]:
        ImageDraw.Draw(labels).polygon(points, fill=1)
    return np.asarray(np.asarray(labels).reshape(side, FINE, side, FINE).any(axis=(1, 3)))


def with_kind(scene: Scene, part: str, kind: int) -> Scene:
    """The scene with another kind of `part` (beak, wing, tail or colour)."""
    place = list(KINDS).index(part)
    return replace(scene, kinds=(*scene.kinds[:place], kind, *scene.kinds[place + 1 :]))


def scenes(spec: PaintedBirds, split: str, seed: int) -> list[Scene]:
    """The scenes of a split, species in turn; scene i depends on (seed, split, i) and the settings of a scene alone."""
    rows = species(spec.differ_in)
    count = {"train": spec.train_images, "test": spec.test_images}.get(split, spec.validation_images)
    assert count is not None
    return [Scene(spec=spec, kinds=rows[i % len(rows)], seed=seed, split=split, number=i) for i in range(count)]


def generate(spec: PaintedBirds, split: str, seed: int) -> Split:
    """Paint a split. `masks` are those of `PARTS`, their union is the bird; `split` may also be "validation"."""
    todo = scenes(spec, split, seed)
    images, masks = paint_split(_paint_all, todo, len(PARTS))
    labels = np.arange(len(todo), dtype=np.int64) % len(species(spec.differ_in))
    return drawn(images, labels, masks, [f"{split} {i}" for i in range(len(todo))], PARTS)


def paint_split(
    work: Callable[[Sequence[Scene]], list[Painted]], todo: Sequence[Scene], masks: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The images `[N, H, W, 3]` and masks `[N, masks, H, W]` that `work` paints of scenes, in one process per core."""
    side, count = todo[0].spec.image_size, len(todo)
    images = np.empty((count, side, side, 3), np.uint8)
    shown = np.empty((count, masks, side, side), np.bool_)
    done = 0
    with tqdm(total=count, desc=f"paint {todo[0].split} images", unit="img", disable=None) as bar:
        parts = [todo[start : start + AT_ONCE] for start in range(0, count, AT_ONCE)]
        for painted in in_processes(work, parts):
            for image, mask in painted:
                images[done], shown[done] = image, mask
                done += 1
                bar.update()
    return images, shown


def _paint_all(todo: Sequence[Scene], without: str | None = None) -> list[Painted]:
    return [paint(scene, without=without) for scene in todo]


def without_each_part(todo: Sequence[Scene]) -> NDArray[np.uint8]:
    """The scenes painted without each of the `PARTS` `[6, N, H, W, 3]`."""
    painted = in_processes(partial(_paint_all, todo), PARTS)
    return np.array([[image for image, _ in images] for images in painted])
