"""Minimal sufficient explanations counted, and hard explanations compared with them.

A hard explanation may itself be sufficient, have cells to spare, cover a minimal explanation, or mix several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bla.explainers.sufficient_sets import LEVEL, Cells, Search, Verdict, diverse

Array = NDArray[np.float64]
Hard = NDArray[np.bool_]
OVERLAPS = (0, 1, 2)
"""Cells that two sets may share and still count as different."""
COVER = ("covers several", "covers one", "mixes several", "touches one", "touches none")
"""How a set of cells relates to an image's minimal sets, counted among those that share at most one cell.

It mixes several if it holds none whole and its cells in them are not all in one; a cell that two share mixes nothing.
"""


@dataclass(frozen=True)
class ImageSets:
    """The sets that SAG found in an image, best first, their relative confidences, and the verdict on each.

    `black` is the relative confidence of the black image alone.
    """

    sets: list[list[int]]
    confidences: list[float]
    verdicts: list[Verdict]
    black: float

    @property
    def black_suffices(self) -> bool:
        """Whether no patch is needed."""
        return self.black >= LEVEL

    @property
    def sufficient(self) -> list[list[int]]:
        """The sets that suffice; none where the black image alone does."""
        if self.black_suffices:
            return []
        return [cells for cells, verdict in zip(self.sets, self.verdicts, strict=True) if verdict != "not_sufficient"]


def image_row(image: ImageSets) -> dict[str, object]:
    """M9 of an image, of the sets that suffice: cells of the smallest (NaN without one), how many, different, and verified.

    `sets_found` also counts sets that do not suffice when they are evaluated again. Different sets are chosen as `diverse` does.
    """
    sets = image.sufficient
    row: dict[str, object] = {"smallest_set": len(sets[0]) if sets else np.nan, "sets": len(sets)}
    row["sets_found"] = 0 if image.black_suffices else len(image.sets)
    row |= {f"different_sets_{overlap}": len(diverse(sets, overlap)) for overlap in OVERLAPS}
    return row | {"minimal_sets": image.verdicts.count("minimal"), "black_suffices": image.black_suffices}


def different(sets: Sequence[list[int]]) -> list[list[int]]:
    """The most of an image's sets of which no two share more than one cell, chosen among the first 20, small ones first (`diverse`)."""
    return [sets[number] for number in diverse(sets, 1)]


def random_sets(hard: Hard, seed: int) -> Hard:
    """As many cells as `hard` `[R, N, n]` keeps, drawn at random for each run and image."""
    ranks = np.random.default_rng(seed).random(hard.shape).argsort(axis=2).argsort(axis=2)
    return np.asarray(ranks < hard.sum(axis=2, keepdims=True))


def cells_to_spare(cells: Sequence[int], confidence: float) -> Search[float]:
    """How many cells can go one by one while the set stays sufficient; NaN if it is not.

    The cell whose removal leaves the highest confidence goes first. `confidence` is the set's own, relative.
    """
    current, removed = Cells(cells), 0
    if confidence < LEVEL:
        return np.nan
    while current:
        smaller = [current - {cell} for cell in sorted(current)]
        values = yield smaller
        best = int(np.argmax(values))
        if values[best] < LEVEL:
            break
        current, removed = smaller[best], removed + 1
    return float(removed)


def relation(cells: Hard, sets: Sequence[Sequence[int]]) -> str:
    """One of `COVER`: how many of an image's `different` sets the cells `[n]` hold whole, or else have cells of."""
    whole = sum(bool(cells[list(of_set)].all()) for of_set in sets)
    if whole:
        return COVER[0] if whole > 1 else COVER[1]
    pieces = {cell for of_set in sets for cell in of_set if cells[cell]}
    if not pieces:
        return COVER[4]
    return COVER[3] if any(pieces <= set(of_set) for of_set in sets) else COVER[2]


def choices(hard: Hard, sets: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """For each run of `hard` `[R, n]` the place, among an image's `different` sets, of the one that it holds most of.

    Of equal shares the first; -1 for a run that holds no cell of any.
    """
    shares = np.stack([hard[:, list(of_set)].mean(axis=1) for of_set in sets], axis=1)
    return np.where(shares.max(axis=1) > 0, shares.argmax(axis=1), -1)


def same_choice(chosen: NDArray[np.int64]) -> Array:
    """For each run of choices `[R]` the share of the other runs with the same choice; 0 for a run without one."""
    equal = (chosen[:, None] == chosen) & (chosen >= 0)
    return np.asarray((equal.sum(axis=1) - (chosen >= 0)) / (len(chosen) - 1))


def held_parts(hard: Mapping[str, Array], parts: Hard, decisive: Hard) -> dict[str, NDArray[np.bool_]]:
    """For each method, of each decisive part, whether at least half of its pixels are visible, `[D]`.

    `hard` are the shares `[M, H, W]` of each pixel that a method's set shows, `parts` the masks `[M, S, H, W]`,
    `decisive` bool `[M, S]`: whether the decision changes without the part. Parts without pixels are left out.
    """
    chosen = np.argwhere(decisive & parts.any(axis=(2, 3)))
    return {
        name: np.array([shown[image][parts[image, part]].mean() >= 0.5 for image, part in chosen], dtype=bool)
        for name, shown in hard.items()
    }
