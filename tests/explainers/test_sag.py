"""SAG: the beam search against exhaustive search and boolean classifiers, sets of pixels, and independence of the batch."""

from itertools import combinations
from time import perf_counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from small_networks import Small, random_head
from torch import nn

from bla.base.errors import BlaError
from bla.explainers.mask_optimisation import MaskSettings
from bla.explainers.optimised.i_gos import IGos
from bla.explainers.structured import sag
from bla.explainers.structured.sag import SAG, Settings, ShownCells, corner_masks
from bla.explainers.sufficient_sets import LEVEL, Beam, diverse, grown, minimal_sets, ranking, run_together, verify
from bla.networks.classifier import Classifier
from bla.networks.patches import cell_means

CELLS = range(9)
SUBSETS = [frozenset(cells) for size in range(10) for cells in combinations(CELLS, size)]
FULL = Beam(width=1000, successors=9, limit=1000)
NARROW = Beam(width=3, successors=15, limit=10)


def search(confidence, beam, order=CELLS):
    (found,) = run_together([minimal_sets(list(order), beam)], lambda numbers, sets: [confidence(s) for s in sets])
    return found


def exhaustive(confidence):
    """All sufficient sets of which no proper part is sufficient, by definition."""
    sufficient = [cells for cells in SUBSETS if confidence(cells) >= LEVEL]
    return {cells for cells in sufficient if not any(part < cells for part in sufficient)}


def any_of(sets):
    """1 if one of the sets is visible, else 0."""
    return lambda cells: float(any(of_sets <= cells for of_sets in map(frozenset, sets)))


def any_function(seed):
    """A confidence in [0, 1] that need not grow with the set; the whole image has 1."""
    values = dict(zip(SUBSETS, np.random.default_rng(seed).random(len(SUBSETS)) ** 0.3, strict=True))
    return lambda cells: 1.0 if len(cells) == 9 else values[cells]


some_sets = st.lists(st.frozensets(st.sampled_from(list(CELLS)), min_size=1, max_size=4), min_size=1, max_size=5)


@pytest.mark.parametrize("beam", [NARROW, FULL, Beam(width=3, successors=15, limit=10, legacy=True)])
@pytest.mark.parametrize(("a", "b", "c"), [(0, 1, 2), (8, 3, 4), (5, 6, 0)])
def test_the_boolean_example_has_exactly_its_two_explanations(a, b, c, beam):
    found = search(any_of([{a, b}, {c}]), beam)
    assert found.sets == [[c], sorted([a, b])]
    assert found.confidences == [1, 1]
    assert diverse(found.sets, 0) == [0, 1]


@given(some_sets)
@settings(max_examples=60, deadline=None)
def test_a_full_beam_finds_what_exhaustive_search_finds_in_boolean_functions(sets):
    found = search(any_of(sets), FULL)
    assert set(map(frozenset, found.sets)) == exhaustive(any_of(sets))


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_full_beam_is_exact_for_functions_that_shrink_when_cells_are_added(seed):
    confidence = any_function(seed)
    assert set(map(frozenset, search(confidence, FULL).sets)) == exhaustive(confidence)


@given(some_sets, st.permutations(list(CELLS)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_narrow_beam_finds_only_minimal_sets_of_boolean_functions_and_at_least_one(sets, order, legacy):
    beam = Beam(width=3, successors=4, limit=10, legacy=legacy)
    found = search(any_of(sets), beam, order).sets
    assert found
    assert len(set(map(tuple, found))) == len(found)
    assert set(map(frozenset, found)) <= exhaustive(any_of(sets))


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_every_verdict_of_sets_found_is_right(seed):
    confidence = any_function(seed)
    found = search(confidence, NARROW)
    (verdicts,) = run_together([verify(found.sets)], lambda numbers, sets: [confidence(s) for s in sets])
    minimal = exhaustive(confidence)
    for cells, value, verdict in zip(found.sets, found.confidences, verdicts, strict=True):
        assert value == confidence(frozenset(cells)) >= LEVEL
        assert all(confidence(frozenset(cells) - {cell}) < LEVEL for cell in cells)
        assert (verdict == "minimal") == (frozenset(cells) in minimal)


def test_verdicts_name_what_is_wrong_with_a_set():
    values = any_of([{1, 2}, {4}])

    def verdict(cells, confidence=values):
        return run_together([verify([cells])], lambda numbers, sets: [confidence(s) for s in sets])[0][0]

    assert verdict([1]) == "not_sufficient"
    assert verdict([4, 5]) == verdict([1, 2, 3]) == "part_suffices"
    assert verdict([1, 2]) == verdict([4]) == "minimal"
    eleven = any_of([range(11)])
    assert verdict(range(11), eleven) == "no_patch_can_go"
    assert verdict(range(12), eleven) == "part_suffices"


def additive(weights):
    return lambda cells: sum(weights.get(cell, 0) for cell in cells)


def beam_after(steps, confidence, beam):
    current = [frozenset()]
    for _ in range(steps):
        tried = grown(current, list(CELLS), beam)
        current = [tried[place] for place in ranking([confidence(cells) for cells in tried])][
            : beam.width + beam.legacy
        ]
    return current


def test_the_authors_beam_holds_sets_twice_where_ours_holds_different_ones():
    confidence = additive({1: 0.3, 2: 0.2, 3: 0.1})
    theirs = beam_after(2, confidence, Beam(width=3, successors=15, limit=10, legacy=True))
    ours = beam_after(2, confidence, Beam(width=4, successors=15, limit=10))
    assert theirs == [{1, 2}, {1, 2}, {1, 3}, {1, 3}]
    assert len(set(ours)) == len(ours) == 4
    assert ours[:2] == [{1, 2}, {1, 3}]


def test_the_authors_beam_misses_the_smaller_explanation_because_one_set_takes_two_places():
    weights = {0: 0.3, 1: 0.3, 5: 0.15, 2: 0.1, 3: 0.05}

    def confidence(cells):
        """{0, 1, 2, 3} suffices, and {5, 6} if 1 is hidden."""
        return 1.0 if {0, 1, 2, 3} <= cells or ({5, 6} <= cells and 1 not in cells) else additive(weights)(cells)

    theirs = search(confidence, Beam(width=1, successors=9, limit=1, legacy=True))  # two places, both {0, 1}
    ours = search(confidence, Beam(width=2, successors=9, limit=1))
    assert theirs.sets == [[0, 1, 2, 3]]
    assert ours.sets == [[5, 6]]


def test_both_beams_agree_on_a_chain():
    confidence = any_of([{1, 2, 3}])
    beams = [Beam(width=3, successors=9, limit=10, legacy=legacy) for legacy in (False, True)]
    assert [search(confidence, beam).sets for beam in beams] == [[[1, 2, 3]], [[1, 2, 3]]]


def test_more_sets_than_the_limit_come_from_the_authors_beam_alone():
    single = any_of([{cell} for cell in CELLS])
    assert len(search(single, Beam(width=3, successors=9, limit=4)).sets) == 4
    assert len(search(single, Beam(width=3, successors=9, limit=4, legacy=True)).sets) == 9


def test_nothing_is_searched_where_the_background_suffices():
    found = search(lambda cells: 1.0, NARROW)
    assert (found.sets, found.confidences) == ([[]], [1.0])


@given(st.lists(st.frozensets(st.integers(0, 6), max_size=4), max_size=7), st.integers(0, 2))
@settings(max_examples=80, deadline=None)
def test_diverse_sets_are_the_most_that_overlap_little(sets, overlap):
    chosen = diverse(sets, overlap)
    fitting = [
        numbers
        for size in range(len(sets) + 1)
        for numbers in combinations(range(len(sets)), size)
        if all(len(sets[i] & sets[j]) <= overlap for i, j in combinations(numbers, 2))
    ]
    assert tuple(chosen) in fitting
    largest = max(map(len, fitting))
    assert len(chosen) == largest
    assert tuple(chosen) == min(numbers for numbers in fitting if len(numbers) == largest)


def test_different_sets_are_chosen_among_the_first_20_and_quickly():
    rng = np.random.default_rng(0)
    many = [rng.choice(49, 4, replace=False).tolist() for _ in range(200)]
    start = perf_counter()
    chosen = [diverse(many, overlap) for overlap in (0, 1, 2)]
    assert perf_counter() - start < 5  # 30 sets took 6 s, 200 would never end
    assert chosen == [diverse(many[:20], overlap) for overlap in (0, 1, 2)]


def test_at_most_20_sets_can_be_asked_for():
    assert TypeAdapter(Settings).validate_python({"sets": 20}).sets == 20
    with pytest.raises(ValidationError, match="less than or equal to 20"):
        TypeAdapter(Settings).validate_python({"sets": 21})


def test_searches_that_run_together_ask_together_and_find_what_they_find_alone():
    functions = [any_of([{0, 1}, {2}]), any_of([{3, 4, 5, 6}]), lambda cells: 1.0]
    rounds = []

    def evaluate(numbers, sets):
        rounds.append(set(numbers))
        return [functions[number](cells) for number, cells in zip(numbers, sets, strict=True)]

    together = run_together([minimal_sets(list(CELLS), NARROW) for _ in functions], evaluate)
    assert together == [search(confidence, NARROW) for confidence in functions]
    assert rounds[0] == {0, 1, 2}
    assert 2 not in rounds[1]


class Brightness(nn.Module):
    """The feature map is the mean brightness of each cell of 2 x 2 pixels."""

    def __init__(self):
        super().__init__()
        self.mean, self.divisor = (
            nn.Parameter(value, requires_grad=False) for value in (torch.zeros(3), torch.ones(3))
        )

    def feature_map(self, images):
        return nn.functional.avg_pool2d(images.float().mean(dim=3)[:, None] / 255, 2)


@pytest.mark.parametrize(("height", "width", "size"), [(60, 10, 30), (10, 62, 31), (20, 20, 28)])
def test_the_mask_of_the_guide_i_gos_is_no_coarser_than_the_feature_map(height, width, size, monkeypatch):
    settings = []
    monkeypatch.setattr(sag, "IGos", lambda classifier, given: settings.append(given) or IGos(classifier, given))
    images = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    method = SAG(Classifier(Brightness(), random_head(1, 1)).eval(), Settings(guide="i_gos"))
    (order,) = method._orders(images, torch.tensor([0]), torch.zeros(1), method.grid(images))
    assert sorted(order) == list(range(height * width // 4))
    assert settings == [MaskSettings(iterations=2, size=size)]


class Visible(nn.Module):
    """The feature map is 1 where the middle of the patch (of the corner-aligned 3x3 grid) is bright, else 0."""

    mean = torch.full((3, 1, 1), 100.0)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)

    def feature_map(self, images):
        return (images[:, ::16, ::16].float().mean(dim=3) > 127)[:, None].float()


class AnyOf(nn.Module):
    """Class 1 is certain if {a, b} or {c} is visible, else class 0."""

    def __init__(self, a, b, c):
        super().__init__()
        self.cells = a, b, c

    def forward(self, features):
        a, b, c = features.flatten(1)[:, self.cells].unbind(dim=1)
        score = 40 * (a * b + c - a * b * c) - 20
        return torch.stack([torch.zeros_like(score), score], dim=1)[None]


@pytest.mark.parametrize(("a", "b", "c"), [(0, 1, 2), (8, 3, 4), (5, 6, 0)])
def test_the_boolean_example_in_pixels(a, b, c):
    classifier = Classifier(Visible(), AnyOf(a, b, c)).eval()
    white = torch.full((2, 33, 33, 3), 255, dtype=torch.uint8)
    maps, sets = SAG(classifier).explain_with_sets(white, torch.ones(2, dtype=torch.int64), torch.zeros(2))
    assert sets == [[[c], sorted([a, b])]] * 2
    expected = np.zeros(9)
    expected[[a, b, c]] = 0.5
    np.testing.assert_allclose(maps.flatten(1), [expected] * 2)


def test_where_the_black_image_suffices_the_set_is_the_first_patch_of_the_guide():
    classifier = Classifier(Visible(), AnyOf(0, 1, 2)).eval()
    dark = torch.zeros(1, 33, 33, 3, dtype=torch.uint8)
    maps, sets = SAG(classifier).explain_with_sets(dark, torch.tensor([0]), torch.zeros(1))
    assert [len(cells) for cells in sets[0]] == [1]
    assert maps.sum() == 1


@pytest.mark.parametrize("broken", ["every image", "some sets"])
def test_class_scores_that_are_not_finite_are_one_message(broken):
    class Broken(AnyOf):
        def forward(self, features):
            """The whole image has 9 bright cells."""
            bad = (features.flatten(1).sum(dim=1) < 9) if broken == "some sets" else torch.ones(len(features)) > 0
            return super().forward(features).masked_fill(bad[None, :, None], torch.nan)

    white = torch.full((1, 33, 33, 3), 255, dtype=torch.uint8)
    with pytest.raises(BlaError, match="class scores or their gradients are not finite"):
        SAG(Classifier(Visible(), Broken(0, 1, 2)).eval()).explain(white, torch.tensor([1]), torch.zeros(1))


@pytest.fixture(scope="module")
def small():
    return Classifier(Small(), random_head(1, 6, spread=3)).eval()


def test_shown_patches_have_soft_edges_and_the_rest_is_black_before_or_after_normalisation(small, images, targets):
    pattern = np.random.default_rng(0).integers(0, 2, (4, 4)).astype(float)
    places = np.arange(64) * 3 / 63
    rows = np.array([np.interp(places, range(4), row) for row in pattern])
    mask = np.array([np.interp(places, range(4), column) for column in rows.T]).T
    masks = corner_masks(torch.from_numpy(pattern)[None, None], (64, 64))
    np.testing.assert_allclose(masks(torch.tensor([0]), torch.tensor([0]))[0], mask, atol=1e-6)
    shown = frozenset(np.flatnonzero(pattern).tolist())
    (value,) = ShownCells(small, images, targets, (4, 4)).relative([1], [shown])
    weights = torch.from_numpy(mask).float()
    black = small.extractor.normalised(torch.zeros_like(images[1:2]))
    normalised = small.extractor.normalised(images[1:2]) * weights + black * (1 - weights)
    probabilities = [small.logits(small.extractor.of_normalised(x)).softmax(dim=2)[0, 0, targets[1]] for x in (normalised, small.extractor.normalised(images[1:2]))]  # fmt: skip
    assert value == pytest.approx((probabilities[0] / probabilities[1]).item(), rel=1e-4)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_sets_do_not_depend_on_the_batch_size(size, small, images, targets, seeds, monkeypatch):
    method = SAG(small, Settings(beam=2, successors=4, sets=3))
    maps, sets = method.explain_with_sets(images, targets, seeds)
    monkeypatch.setattr(sag, "batch_size_for", lambda device, pixels: size)
    again, same = method.explain_with_sets(images, targets, seeds)
    assert sets == same
    assert torch.equal(maps, again)


def test_at_least_95_percent_of_the_sets_of_a_network_are_sufficient_and_minimal(small):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (4, 64, 64, 3), generator=generator, dtype=torch.uint8)
    targets = small(images)[0].argmax(dim=1)
    method = SAG(small, Settings(sets=6))
    _, sets = method.explain_with_sets(images, targets, torch.zeros(4))
    shown = ShownCells(small, images, targets, (4, 4))
    checks = run_together([verify(of_image) for of_image in sets], shown.relative)
    verdicts = [verdict for of_image in checks for verdict in of_image]
    assert len(verdicts) > 8
    assert verdicts.count("minimal") >= 0.95 * len(verdicts)


def test_the_guide_i_gos_is_that_of_two_iterations_and_the_same_for_every_seed(small, images, targets, seeds):
    method = SAG(small, Settings(beam=1, successors=3, sets=2, guide="i_gos"))
    maps = IGos(small, MaskSettings(iterations=2)).explain(images[:2], targets[:2], torch.zeros(2, dtype=torch.int64))
    best = [int(of_image.argmax()) for of_image in cell_means(maps.double(), method.grid(images)).flatten(1)]
    orders = method._orders(images[:2], targets[:2], seeds[:2], method.grid(images))
    assert [order[0] for order in orders] == best
    assert orders == method._orders(images[:2], targets[:2], seeds[:2] + 1, method.grid(images))
    assert orders != SAG(small)._orders(images[:2], targets[:2], seeds[:2], method.grid(images))
