"""Minimal sufficient sets of cells: beam search, reduction, verification, and sets that differ.

A set of cells is sufficient if the classifier, shown these cells alone, keeps a share of its confidence (`LEVEL`). It is
minimal if no smaller part of it is sufficient.

    search = minimal_sets([3, 0, 2, 1], Beam(width=3, successors=15, limit=10))
    (found,) = run_together([search], lambda number, sets: [relative_confidence(cells) for cells in sets])
    found.sets                  # [[0, 3], [1, 2, 3]], best first

A search is a generator: it yields the sets whose confidence it needs and receives their confidences, relative to that of
the whole image. So any function can be searched, and `run_together` evaluates the sets of many images in one batch.

Source: Shitole et al. 2021, "One explanation is not enough: structured attention graphs for image classification".
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeVar

Cells = frozenset[int]
Result = TypeVar("Result")
Search = Generator[list[Cells], list[float], Result]
"""Yields sets of cells, receives their relative confidences."""
Evaluate = Callable[[list[int], list[Cells]], list[float]]
"""Relative confidences of P sets of cells, from the numbers of the P searches that ask."""

LEVEL = 0.9
"""The share of the whole image's confidence that a sufficient set keeps."""
DIGITS = 3
"""Significant digits to which confidences are compared, so that rounding errors do not decide the order of equal sets."""
MOST_SETS = 20
"""Sets of an image at most: the time of `diverse` grows exponentially with their number."""
LARGEST_VERIFIED = 10
"""The largest set of which every part is evaluated: 2^10 parts."""
Verdict = Literal["minimal", "not_sufficient", "part_suffices", "no_patch_can_go"]
"""`no_patch_can_go`: sufficient without a patch to spare, but too large to evaluate every part."""


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Width of the beam, additions tried for each of its sets, and when to stop.

    With `legacy` it is the authors' beam: it has one place more, a set that was reached in two orders takes two places,
    and more than `limit` sets may be found.
    """

    width: int
    successors: int
    limit: int
    legacy: bool = False


@dataclass(frozen=True)
class Found:
    """Minimal sufficient sets, best first (small ones, then confident ones), and their relative confidences.

    The only set is the empty one if the background alone suffices.
    """

    sets: list[list[int]]
    confidences: list[float]


def run_together(searches: Sequence[Search[Result]], evaluate: Evaluate) -> list[Result]:
    """The results of all searches; in every round the sets of all of them are evaluated together."""
    results: dict[int, Result] = {}
    answers: dict[int, list[float] | None] = dict.fromkeys(range(len(searches)))
    while answers:
        asked: dict[int, list[Cells]] = {}
        for number, answer in answers.items():
            try:
                asked[number] = searches[number].send(answer)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as end:
                results[number] = end.value
        pairs = [(number, cells) for number, sets in asked.items() for cells in sets]
        values = iter(evaluate([number for number, _ in pairs], [cells for _, cells in pairs]) if pairs else [])
        answers = {number: [next(values) for _ in sets] for number, sets in asked.items()}
    return [results[number] for number in range(len(searches))]


def minimal_sets(order: Sequence[int], beam: Beam) -> Search[Found]:
    """Search for minimal sufficient sets; `order` are all cells, the most important one first.

    Each level adds a cell to the sets of the beam: one of the first `successors` cells of the order that a set lacks. A
    sufficient set is reduced and leaves the beam, and so do sets that contain one (not with `legacy`).
    """
    known: dict[Cells, float] = {}
    places = {cell: place for place, cell in enumerate(order)}
    found: list[Cells] = []
    current = [Cells()]
    (background,) = yield from _ask(known, current)
    if background >= LEVEL:
        return Found([[]], [background])
    while current and len(found) < beam.limit:
        tried = grown(current, order, beam)
        if not beam.legacy:  # a set with a smaller sufficient part is not minimal
            tried = [cells for cells in tried if not any(smaller < cells for smaller in found)]
        values = yield from _ask(known, tried)
        ranked = [tried[place] for place in ranking(values)]
        enough = [cells for cells in dict.fromkeys(ranked) if known[cells] >= LEVEL]
        while enough and (beam.legacy or len(found) < beam.limit):
            count = len(enough) if beam.legacy else beam.limit - len(found)
            reduced = yield from _reduce(known, enough[:count], places)
            found = list(dict.fromkeys([*found, *reduced]))
            enough = enough[count:]
        current = [cells for cells in ranked if known[cells] < LEVEL][: beam.width + beam.legacy]
    sufficient = [cells for cells, value in known.items() if value >= LEVEL]
    minimal = [cells for cells in found if not any(other < cells for other in sufficient)]
    minimal.sort(key=lambda cells: (len(cells), -_rounded(known[cells]), sorted(places[cell] for cell in cells)))
    if not beam.legacy:
        minimal = minimal[: beam.limit]
    return Found([sorted(cells) for cells in minimal], [known[cells] for cells in minimal])


def grown(sets: Sequence[Cells], order: Sequence[int], beam: Beam) -> list[Cells]:
    """Each set with each of the first cells of the order that it lacks; every result once, or as often as it is reached."""
    results = [
        cells | {cell} for cells in sets for cell in [cell for cell in order if cell not in cells][: beam.successors]
    ]
    return results if beam.legacy else list(dict.fromkeys(results))


def ranking(values: Sequence[float]) -> list[int]:
    """The places of the values from the largest to the smallest; equal ones (to `DIGITS` digits) in their order."""
    return sorted(range(len(values)), key=lambda place: -_rounded(values[place]))


def diverse(sets: Sequence[Sequence[int]], overlap: int) -> list[int]:
    """The numbers of the most sets of which no two share more than `overlap` cells; of several choices the first one.

    Only the first `MOST_SETS` are chosen from, in the order of `Found`: small sets first, then confident ones. More come from
    the authors' beam alone.
    """
    as_sets = [set(cells) for cells in sets[:MOST_SETS]]
    fits = [[len(a & b) <= overlap for b in as_sets] for a in as_sets]

    def extended(chosen: list[int], first: int) -> list[int]:
        best = chosen
        for number in range(first, len(as_sets)):
            if len(chosen) + len(as_sets) - number <= len(best):
                break
            if all(fits[number][other] for other in chosen):
                longer = extended([*chosen, number], number + 1)
                best = longer if len(longer) > len(best) else best
        return best

    return extended([], 0)


def verify(sets: Sequence[Iterable[int]]) -> Search[list[Verdict]]:
    """Whether each set of an image is sufficient and minimal, by evaluating the set and its parts."""
    known: dict[Cells, float] = {}
    wholes = [Cells(cells) for cells in sets]
    parts = [_parts(whole) for whole in wholes]
    yield from _ask(known, [*wholes, *(part for of_set in parts for part in of_set)])

    def verdict(whole: Cells, parts: list[Cells]) -> Verdict:
        if known[whole] < LEVEL:
            return "not_sufficient"
        if any(known[part] >= LEVEL for part in parts):
            return "part_suffices"
        return "minimal" if len(whole) <= LARGEST_VERIFIED else "no_patch_can_go"

    return [verdict(*pair) for pair in zip(wholes, parts, strict=True)]


def _parts(whole: Cells) -> list[Cells]:
    """All proper parts of a set; of one that is larger than `LARGEST_VERIFIED`, those that lack one cell."""
    sizes = range(len(whole)) if len(whole) <= LARGEST_VERIFIED else [len(whole) - 1]
    return [Cells(part) for size in sizes for part in combinations(sorted(whole), size)]


def _ask(known: dict[Cells, float], sets: Sequence[Cells]) -> Search[list[float]]:
    """The confidences of the sets; only those that are not `known` are evaluated."""
    missing = [cells for cells in dict.fromkeys(sets) if cells not in known]
    if missing:
        known.update(zip(missing, (yield missing), strict=True))
    return [known[cells] for cells in sets]


def _reduce(known: dict[Cells, float], sets: Sequence[Cells], places: dict[int, int]) -> Search[list[Cells]]:
    """The sets, from which cells are removed one by one while they stay sufficient.

    The cell whose removal leaves the highest confidence goes first, of equal ones the least important.
    """
    current, open_ = list(sets), set(range(len(sets)))
    while open_:
        smaller = {
            number: [current[number] - {cell} for cell in sorted(current[number], key=lambda cell: -places[cell])]
            for number in open_
        }
        yield from _ask(known, [cells for of_set in smaller.values() for cells in of_set])
        for number, of_set in smaller.items():
            values = [known[cells] for cells in of_set]
            best = of_set[ranking(values)[0]]
            if known[best] >= LEVEL:
                current[number] = best
            else:
                open_.remove(number)
    return current


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")
