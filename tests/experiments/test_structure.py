"""Structured explanations: graphs, the page, comparisons of hard explanations with minimal sets, and the stage."""

import json
import re
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.experiments.related_methods.structure import measures
from bla.experiments.related_methods.structure.figures import CHOICE, SUFFICIENT, chart, drawn_graph
from bla.experiments.related_methods.structure.graph import CHILDREN, EXPANDED, attention_graph
from bla.experiments.related_methods.structure.measures import COVER, ImageSets
from bla.experiments.related_methods.structure.tables import (
    beside_random,
    corrected_by_method,
    explained,
    of_sufficient,
    proportion,
    right_against_wrong,
    summary,
)
from bla.explainers.structured.sag import ShownCells
from bla.explainers.sufficient_sets import run_together, verify
from bla.plotting.style import STYLE
from bla.report.graph_page import GraphOfImage, graph_page
from pipeline.run.stage import run_by_name


def any_of(*sets):
    return lambda cells: max(len(cells & of_set) / len(of_set) for of_set in map(frozenset, sets))


def graph_of(sets, confidence):
    def answer(search):
        return run_together([search], lambda numbers, asked: [confidence(cells) for cells in asked])[0]

    return answer(attention_graph(sets, answer(verify(sets))))


def test_equal_nodes_are_one_and_an_edge_takes_one_patch_away():
    confidence = any_of({1, 2, 3}, {3, 4})
    graph = graph_of([[3, 4], [1, 2, 3]], confidence)
    assert len({tuple(node) for node in graph.nodes}) == len(graph.nodes)
    assert [graph.nodes[root] for root in graph.roots] == [[3, 4], [1, 2, 3]]
    for parent, child, cell in graph.edges:
        assert set(graph.nodes[parent]) - {cell} == set(graph.nodes[child])
        assert cell in graph.nodes[parent]
    for node, value in zip(graph.nodes, graph.confidences, strict=True):
        assert value == confidence(frozenset(node))
    assert graph.nodes == [[1, 2, 3], [1, 2], [1, 3], [2, 3], [3, 4], [1], [2], [3], [4]]
    parents_of_3 = [graph.nodes[parent] for parent, child, _ in graph.edges if graph.nodes[child] == [3]]
    assert parents_of_3 == [[1, 3], [2, 3], [3, 4]]  # reached three times, one node


def test_weak_nodes_are_not_expanded_and_a_node_has_at_most_three_children():
    graph = graph_of([[0, 1, 2, 3, 4]], lambda cells: len(cells) / 5)
    children = {i: [cell for parent, _, cell in graph.edges if parent == i] for i in range(len(graph.nodes))}
    for i, node in enumerate(graph.nodes):
        expected = node[:CHILDREN] if graph.confidences[i] > EXPANDED and len(node) > 1 else []
        assert sorted(children[i]) == expected
    assert graph_of([[7]], lambda cells: 1.0).edges == []


def test_roots_share_at_most_one_patch_and_are_at_most_three():
    graph = graph_of([[0, 1, 2], [0, 1, 3], [2, 4], [5], [6]], lambda cells: 0.1)
    assert [graph.nodes[root] for root in graph.roots] == [[0, 1, 2], [2, 4], [5]]


def test_sets_that_do_not_suffice_take_no_place_of_a_root_that_does():
    confidence = any_of({3}, {4})
    graph = graph_of([[0, 1], [1, 2], [0, 2], [3], [4]], confidence)
    assert [graph.nodes[root] for root in graph.roots] == [[3], [4]]
    assert graph.verdicts == ["minimal"] * 2
    none = graph_of([[0, 1], [2]], confidence)
    assert [none.nodes[root] for root in none.roots] == [[0, 1], [2]]
    assert none.verdicts == ["not_sufficient"] * 2
    assert not any(map(none.star, range(len(none.nodes))))


IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
NAME = "</script><script>alert(1)</script> & \u201dO'Neill\u201d $x$"


def page_of(graph, dataset="birds", black=None):
    return graph_page(dataset, [GraphOfImage(3, IMAGE, NAME, 0.8, graph, black)], (7, 7))


def images_on(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)["images"]


def test_the_page_holds_the_graph_and_no_name_can_end_its_script():
    graph = graph_of([[3, 4], [1, 2, 3]], any_of({1, 2, 3}, {3, 4}))
    text = page_of(graph, "<img src=x onerror=alert(1)>")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img src=x" not in text
    (image,) = images_on(text)
    assert image["class"] == NAME
    assert image["nodes"] == graph.nodes
    assert image["edges"] == [list(edge) for edge in graph.edges]
    assert "innerHTML" not in text


def test_the_page_loads_nothing_from_the_network():
    text = page_of(graph_of([[3, 4]], any_of({3, 4})))
    assert "default-src 'none'" in text
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+", text.split('id="data"')[0] + text.split("</script>")[-2]))
    assert addresses <= {"http://www.w3.org"}  # the name of SVG, which is never loaded
    assert not re.findall(r'(?:src|href)="(?!data:)', text)


def test_the_drawn_graph_has_a_photo_for_each_node():
    graph = graph_of([[3, 4], [1, 2, 3]], any_of({1, 2, 3}, {3, 4}))
    figure = drawn_graph(IMAGE, np.ones((len(graph.nodes), 28, 28)), graph, "bird")
    (axis,) = figure.axes
    assert len(axis.images) == len(graph.nodes)
    assert len(axis.lines) == len(graph.edges)


def test_a_full_star_is_a_minimal_root_an_empty_star_one_with_a_sufficient_part_and_other_roots_have_none():
    confidence = any_of({1, 2}, {3})
    graph = graph_of([[5], [1, 2], [3, 4]], confidence)
    assert graph.verdicts == ["minimal", "part_suffices"]
    stars = {tuple(node): graph.star(place) for place, node in enumerate(graph.nodes) if graph.star(place)}
    assert stars == {(1, 2): "★ ", (3, 4): "☆ "}  # {3} suffices, but the search did not return it
    (image,) = images_on(page_of(graph))
    assert [image["nodes"][i] for i, star in enumerate(image["stars"]) if star] == [[1, 2], [3, 4]]
    (axis,) = drawn_graph(IMAGE, np.ones((len(graph.nodes), 28, 28)), graph, "bird").axes
    assert sorted(text.get_text()[0] for text in axis.texts if text.get_text()[0] in "★☆") == ["★", "☆"]


@pytest.mark.parametrize("black", [None, 0.97])
def test_the_page_says_where_the_black_image_alone_suffices(black):
    (image,) = images_on(page_of(graph_of([[3]], lambda cells: 0.97), black=black))
    assert image["black"] == black
    assert image["verdicts"] == ["part_suffices"]
    assert image["stars"] == ["☆ "]


SETS = [[3], [0, 1], [1, 2, 4], [0, 4, 5, 6]]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([3, 0, 1], "covers several"),
        ([0, 1, 2, 5], "covers one"),
        ([3], "covers one"),
        ([0, 2], "mixes several"),
        ([6], "touches one"),
        ([0], "touches one"),  # two sets share it
        ([0, 4], "touches one"),  # each is in two sets, both are in one
        ([0, 6, 2], "mixes several"),
        ([7, 8], "touches none"),
        ([], "touches none"),
    ],
)
def test_what_a_set_covers_of_the_minimal_sets(cells, expected):
    hard = np.zeros(9, bool)
    hard[cells] = True
    assert measures.relation(hard, SETS) == expected


def test_random_sets_have_the_same_sizes_and_every_cell_the_same_chance():
    hard = np.random.default_rng(0).random((200, 20, 9)) < 0.3
    random = measures.random_sets(hard, 5)
    np.testing.assert_array_equal(random.sum(axis=2), hard.sum(axis=2))
    share, n = random.mean(axis=(0, 1)), 4000
    assert np.abs(share - hard.mean()).max() < 5 * (0.3 * 0.7 / n) ** 0.5


def spare(cells, confidence):
    search = measures.cells_to_spare(cells, confidence(frozenset(cells)))
    return run_together([search], lambda numbers, asked: [confidence(of) for of in asked])[0]


def test_cells_to_spare_are_those_beyond_a_minimal_set():
    confidence = any_of({1, 2, 3})
    assert spare([1, 2, 3], confidence) == 0
    assert spare([0, 1, 2, 3, 8], confidence) == 2
    assert np.isnan(spare([1, 2], confidence))
    assert spare([4], lambda cells: 1.0) == 1  # the background suffices


def test_choices_are_the_sets_that_runs_hold_most_of():
    hard = np.zeros((5, 9), bool)
    for run, cells in enumerate([[3], [0, 1], [0, 1, 3], [0], [8]]):
        hard[run, cells] = True
    chosen = measures.choices(hard, [[3], [0, 1]])
    assert chosen.tolist() == [0, 1, 0, 1, -1]
    expected = [sum(a == b for j, b in enumerate(chosen) if j != i) / 4 if a >= 0 else 0 for i, a in enumerate(chosen)]
    np.testing.assert_allclose(measures.same_choice(chosen), expected)


def test_a_part_is_held_if_half_of_its_pixels_are_shown():
    parts = np.zeros((2, 2, 8, 8), bool)
    parts[0, 0, :2, :4] = parts[0, 1, 4:6, 4:6] = parts[1, 0, 0, 0] = True
    decisive = np.array([[True, True], [False, True]])  # the last one has no pixels
    shown = np.zeros((2, 8, 8))
    shown[:, :, :2] = 1
    assert measures.held_parts({"m": shown}, parts, decisive)["m"].tolist() == [True, False]


def images_table(sizes, right):
    rows = [measures.image_row(ImageSets([list(range(size)), [8]], [1.0, 1.0], ["minimal", "part_suffices"], 0.1)) for size in sizes]  # fmt: skip
    named = {"dataset": "d", "image": range(len(sizes)), "class": ["a", "b"] * (len(sizes) // 2), "right": right}
    return pd.concat([pd.DataFrame(named), pd.DataFrame(rows)], axis=1)


def test_statistics_count_sets_and_compare_right_with_wrong_as_scipy_does():
    sizes, right = [1, 2, 2, 3, 4, 6, 7, 7], [True] * 5 + [False] * 3
    table = images_table(sizes, right)
    assert table["minimal_sets"].tolist() == [1] * 8
    means = summary(table).set_index(["group", "quantity"])
    assert means.loc[("all", "smallest_set"), "mean"] == 4
    reach = stats.t.ppf(0.975, 7) * np.std(sizes, ddof=1) / 8**0.5
    assert means.loc[("all", "smallest_set"), "low"] == pytest.approx(4 - reach)
    assert means.loc[("wrong", "smallest_set"), "n_images"] == 3
    assert set(means.index.get_level_values(0)) == {"all", "right", "wrong", "class a", "class b"}
    test = right_against_wrong(table).set_index("quantity").loc["smallest_set"]
    assert test["p"] == pytest.approx(stats.mannwhitneyu(sizes[:5], sizes[5:]).pvalue)
    assert (test["n_right"], test["n_wrong"]) == (5, 3)
    assert test["p_holm"] == pytest.approx(min(1, 5 * test["p"]))  # the other quantities are constant, p = 1
    assert test["p_holm_smallest"] == pytest.approx(5 * 2 / 56)  # 8 images can be divided into 5 and 3 in 56 ways
    share = explained(table, 9).set_index(["group", "patches"]).loc["all"]["share"]
    assert share.tolist() == [1 / 8, 3 / 8, 4 / 8, 5 / 8, 5 / 8, 6 / 8, 1, 1, 1]


def test_only_sets_that_suffice_are_counted_and_none_where_the_black_image_does():
    sets = [[4], [0, 1], [2, 3]]
    some = measures.image_row(ImageSets(sets, [0.5, 0.9, 1.2], ["not_sufficient", "minimal", "part_suffices"], 0.89))
    assert (some["smallest_set"], some["sets"], some["different_sets_0"]) == (2, 2, 2)
    assert (some["sets_found"], some["minimal_sets"], some["black_suffices"]) == (3, 1, False)
    for verdict in ("part_suffices", "not_sufficient"):  # of the guide's first patch
        none = measures.image_row(ImageSets([[4]], [0.95], [verdict], 0.9))
        assert np.isnan(none["smallest_set"])
        assert [none[name] for name in ("sets", "sets_found", "different_sets_0", "minimal_sets")] == [0, 0, 0, 0]
        assert none["black_suffices"]


def test_images_without_a_sufficient_set_are_counted_apart_and_in_no_mean_test_or_share():
    sizes, right = [1, 3, 1, 5], [True, True, False, False]
    table = images_table(sizes, right)
    table.loc[[2], "smallest_set"] = np.nan
    table.loc[[2], "sets"] = 0
    means = summary(table).set_index(["group", "quantity"])
    assert means.loc[("all", "smallest_set"), ["n_images", "n_without", "mean"]].tolist() == [3, 1, 3]
    assert means.loc[("all", "sets"), "mean"] == 2
    assert means.loc[("wrong", "sets"), ["n_images", "n_without"]].tolist() == [1, 1]
    assert right_against_wrong(table)["n_wrong"].unique().tolist() == [1]
    assert explained(table, 5).set_index(["group", "patches"]).loc[("all", 3)]["share"] == 2 / 3
    nothing = summary(table.iloc[[2]])
    assert nothing["n_images"].eq(0).all()
    assert nothing["mean"].isna().all()


def test_a_share_has_the_exact_interval():
    assert proportion(0, 8)[1:] == pytest.approx((0, 1 - 0.025 ** (1 / 8)))
    assert proportion(8, 8)[1:] == pytest.approx((0.025 ** (1 / 8), 1))
    assert np.isnan(proportion(0, 0)).all()


def test_nothing_is_tested_where_no_prediction_is_wrong_and_no_image_has_several_sets():
    assert right_against_wrong(images_table([1, 2], [True, True])).empty
    assert np.isnan(beside_random(np.ones((3, 0)), np.ones((3, 0)))["mean"])


def test_hard_explanations_beside_random_ones():
    values, random = np.random.default_rng(0).random((2, 4, 12))
    row = beside_random(values, random)
    assert (row["n_runs"], row["n_images"]) == (4, 12)
    assert row["mean"] == values.mean()
    assert row["p"] == pytest.approx(stats.wilcoxon(values.mean(axis=0), random.mean(axis=0)).pvalue)
    assert row["p_smallest"] == 2 / 2**12


def test_intervals_end_where_the_quantity_ends():
    shares = np.array([[1.0, 1, 0, 1], [1, 1, 1, 1]])
    row, free = beside_random(shares, 1 - shares, 1), beside_random(shares, 1 - shares)
    assert (row["low"], row["high"], row["random_low"]) == (free["low"], 1, 0)
    assert free["high"] > 1
    assert row["random_high"] == free["random_high"] > 0
    assert row["p"] == free["p"]


def test_what_only_sufficient_sets_have_is_averaged_over_them():
    row = of_sufficient(np.array([1.0, np.nan, 3, 5]), np.full(4, np.nan))
    assert (row["n_images"], row["mean"]) == (3, 3)
    assert row["high"] == pytest.approx(3 + stats.t.ppf(0.975, 2) * 2 / 3**0.5)
    assert np.isnan(row["random"])
    few = of_sufficient(np.array([0.0, 1]), np.array([7.0, np.nan]))  # Student's interval of 0 and 1 is -5.9 to 6.9
    assert (few["low"], few["random"]) == (0, 7)
    assert few["high"] == pytest.approx(0.5 + stats.t.ppf(0.975, 1) * 0.5)
    assert np.isnan([few["random_low"], few["random_high"]]).all()


@pytest.mark.parametrize("datasets", [1, 2, 3])
def test_holms_p_of_hard_explanations_of_several_datasets(datasets):
    compared = [beside_random(np.eye(3), np.zeros((3, 3))), of_sufficient(np.array([1.0, 2, np.nan]), np.arange(3.0))]
    table = pd.DataFrame([{"method": "bla", "quantity": q} | row for q, row in zip("ab", compared, strict=True)])
    found = corrected_by_method(pd.concat([table.assign(dataset=name) for name in "xyz"[:datasets]]))
    assert found["p_holm"].tolist() == pytest.approx([0.25, np.nan] * datasets, nan_ok=True)
    assert found["p_holm_smallest"].tolist() == pytest.approx([0.25, np.nan] * datasets, nan_ok=True)


def test_the_chart_has_three_panels_for_each_dataset():
    row = {"dataset": "d", "method": "bla", "title": "BLA", "cells": 3.0}
    hard = pd.DataFrame(
        [row | {"quantity": q} | beside_random(np.eye(2), np.zeros((2, 2))) for q in (SUFFICIENT, CHOICE)]
    )
    relations = pd.DataFrame([row | {"set": "hard", "n": 12} | dict.fromkeys(COVER, 0.2)])
    axes = chart(hard, relations).axes
    assert len(axes) == 3
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["BLA, hard (n = 12)"]
    assert len(chart(hard.iloc[:0], relations.iloc[:0]).axes) == 3


def test_the_titles_of_the_chart_end_within_the_picture_and_do_not_touch():
    row = {"dataset": "painted_birds", "method": "bla", "title": "BLA-T (renormalise)", "cells": 3.0}
    hard = pd.DataFrame(
        [row | {"quantity": q} | beside_random(np.eye(20, 8), np.zeros((20, 8))) for q in (SUFFICIENT, CHOICE)]
    )
    relations = pd.DataFrame([row | {"set": kind, "n": 160} | dict.fromkeys(COVER, 0.2) for kind in ("hard", "random")])
    figure = chart(hard, relations)
    figure.draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(lower.y1 < upper.y0 for upper, lower in pairwise(boxes))


@pytest.mark.parametrize("methods", [["BLA"], ["BLA", "BLA-T (renormalise)", "BLA-PH (as released)"]])
def test_the_chart_is_hardly_wider_than_a_phone_and_no_label_is_cut_off_or_touches_another(methods):
    row = {"dataset": "painted_birds", "cells": 3.0}
    hard = pd.DataFrame(
        [
            row | {"method": title, "title": title, "quantity": q} | beside_random(np.eye(20, 8), np.zeros((20, 8)))
            for title in methods
            for q in (SUFFICIENT, CHOICE)
        ]
    )
    relations = pd.DataFrame([row | {"title": title, "set": kind, "n": 160} | dict.fromkeys(COVER, 0.2) for title in methods for kind in ("hard", "random")])  # fmt: skip
    figure = chart(hard, relations)
    figure.draw_without_rendering()
    assert figure.get_figwidth() * STYLE["savefig.dpi"] <= 500
    for axis in figure.axes:
        legend = axis.get_legend().get_window_extent()
        shown = [label.get_window_extent() for label in axis.get_yticklabels()] + [legend]
        assert all(label.get_window_extent().y0 > legend.y1 for label in axis.get_xticklabels())
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in shown)
        assert all(lower.y1 < upper.y0 for upper, lower in pairwise(shown))


@pytest.mark.slow
def test_the_stage_writes_pages_graphs_and_tables_of_the_images_that_sag_explained(explained, edit_params, monkeypatch):
    relative = ShownCells.relative

    def without_black(shown, rows, sets):
        return [value if cells else 0 for value, cells in zip(relative(shown, rows, sets), sets, strict=True)]

    monkeypatch.setattr(ShownCells, "relative", without_black)
    small = {"beam": 1, "successors": 3, "sets": 2, "images": 5}
    edit_params(explained, {"explainers": ["cam", "sag"], "explainer.sag": small})
    run_by_name(["maps", "painted_birds"])
    run_by_name(["structure"])
    images = pd.read_csv("reports/tables/structure_images.csv")
    assert len(images) == 5
    assert images["most_sets"].eq(2).all()
    assert images["sets_found"].between(1, 2).all()
    (page,) = explained.glob("reports/structure/*.html")
    found = json.loads((explained / "reports/structure/painted_birds.json").read_text())
    assert [image["image"] for image in found] == images["image"].tolist()
    for image, row in zip(found, images.itertuples(), strict=True):
        sets = image["sets"]
        assert len(sets) == row.sets_found
        assert sum(verdict != "not_sufficient" for verdict in image["verdicts"]) == row.sets
        assert all(set(a) != set(b) for a, b in combinations(sets, 2))
        assert len(sets[0]) == row.smallest_set
        assert (explained / f"reports/figures/structure/painted_birds_{image['image']}.png").exists()
    hard = pd.read_csv("reports/tables/structure_hard.csv")
    assert {SUFFICIENT, "sufficient_in_feature_map", "cells_to_spare"} <= set(hard["quantity"])
    relations = pd.read_csv("reports/tables/structure_relations.csv")
    np.testing.assert_allclose(relations[list(COVER)].sum(axis=1), 1)
    parts = pd.read_csv("reports/tables/structure_parts.csv")
    assert parts["method"].tolist() == ["sag", "sag_all", "bla_t"]
    assert page.stat().st_size > 1000
    assert not images["black_suffices"].any()


@pytest.mark.slow
def test_the_stage_counts_images_where_the_black_image_suffices_and_compares_nothing_with_them(explained, edit_params):
    small = {"beam": 1, "successors": 3, "sets": 2, "images": 5}
    edit_params(explained, {"explainers": ["cam", "sag"], "explainer.sag": small})
    run_by_name(["maps", "painted_birds"])
    run_by_name(["structure"])
    assert pd.read_csv("reports/tables/structure_images.csv")["black_suffices"].all()  # the network is hardly trained
    summaries = pd.read_csv("reports/tables/structure.csv")
    assert summaries["n_images"].eq(0).all()
    assert summaries.loc[summaries["group"] == "all", "n_without"].eq(5).all()
    assert pd.read_csv("reports/tables/structure_relations.csv")["n"].eq(0).all()
    hard = pd.read_csv("reports/tables/structure_hard.csv")
    assert len(hard)
    assert hard["n_images"].eq(0).all()
    assert hard[["cells", "mean", "random", "p"]].isna().all(axis=None)
    assert pd.read_csv("reports/tables/structure_parts.csv").empty
    page = (explained / "reports/structure/painted_birds.html").read_text()
    assert all(image["black"] >= 0.9 for image in images_on(page))


@pytest.mark.slow
def test_the_stage_writes_empty_tables_where_sag_explained_nothing(explained, capsys):
    run_by_name(["structure"])
    assert "SAG explained no image" in capsys.readouterr().out
    assert pd.read_csv("reports/tables/structure.csv").empty
    assert not list((explained / "reports/structure").iterdir())
