"""The comparison of methods: summary, tests, ranks, similarity of maps, and pictures."""

import hashlib
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from scipy import stats

from bla.experiments.faithfulness import figures as pictures
from bla.experiments.faithfulness.experiment import best_sets, mean_cascade, means_over_images, similarities
from bla.experiments.faithfulness.tables import COSTS, answerable, beaten_by_controls, differences, objectives, summary
from bla.experiments.faithfulness.tables import tests as compare
from bla.experiments.runs import did_not_train, with_titles
from bla.metrics import METRICS
from bla.metrics.rank_correlation import spearman
from bla.plotting.style import save_figure

RNG = np.random.default_rng(0)
NAN = np.nan


def step_down(p: np.ndarray) -> np.ndarray:
    """Holm's correction, step by step from the smallest p."""
    result, largest = np.empty(len(p)), 0.0
    for place, number in enumerate(np.argsort(p)):
        largest = max(largest, min(1, p[number] * (len(p) - place)))
        result[number] = largest
    return result


def per_image() -> pd.DataFrame:
    """Two datasets, four methods, metrics of both directions; the mask lacks costs."""
    rng, rows = np.random.default_rng(6), []
    for dataset in ("z", "a"):
        for method, shift in (("cam", 0.2), ("bla_t", 0.5), ("random", 0.0), ("mask", 0.9)):
            for metric in ("forwards", "iou", "loss_image", "lime"):
                for image in range(9):
                    if method == "mask" and metric == "forwards":
                        continue
                    score = 3 if metric == "forwards" else rng.normal(shift, 0.3)
                    rows.append((dataset, method, metric, image, score))
    return pd.DataFrame(rows, columns=["dataset", "method", "metric", "image", "value"])


def test_the_summary_has_means_errors_counts_and_directions():
    shown = per_image()
    table = summary(shown)
    assert not table.duplicated(["dataset", "method", "metric"]).any()
    assert len(table) == 2 * (4 * 4 - 1)
    for row in table.itertuples():
        own = shown.query("dataset == @row.dataset and method == @row.method and metric == @row.metric")["value"]
        assert row.n == len(own) == 9
        assert row.mean == pytest.approx(own.to_numpy().mean())
        cost = row.metric in COSTS  # measured for all images together
        assert row.standard_error == pytest.approx(np.nan if cost else stats.sem(own), nan_ok=cost)
        assert row.better == ("lower" if row.metric in ("forwards", "loss_image") else "higher")


def test_images_without_a_score_do_not_count():
    shown = pd.DataFrame(
        {
            "dataset": "a",
            "method": "cam",
            "metric": "iou",
            "image": range(4),
            "value": [0.25, NAN, 0.5, 0.75],
        }
    )
    (row,) = summary(shown).to_dict("records")
    assert (row["n"], row["mean"]) == (3, 0.5)
    assert row["standard_error"] == pytest.approx(0.25 / np.sqrt(3))


def test_the_summary_is_ordered_by_dataset_metric_and_method():
    table = summary(per_image())
    metrics = [metric.name for metric in METRICS if metric.name in set(table["metric"])]
    assert metrics == ["lime", "loss_image", "iou", "forwards"]
    methods = ["cam", "bla_t", "random", "mask"]
    wanted = [(d, m, e) for d in ("z", "a") for e in metrics for m in methods if (m, e) != ("mask", "forwards")]
    assert list(table[["dataset", "method", "metric"]].itertuples(index=False, name=None)) == wanted


def test_rank_1_is_the_best_mean_and_equal_means_share_a_rank():
    means = {"cam": 0.5, "bla_t": 0.75, "random": 0.5, "mask": 0.25}
    shown = pd.DataFrame(
        [
            {
                "dataset": d,
                "method": m,
                "metric": e,
                "image": i,
                "value": v + (-1) ** i / 8 + (d == "b") * (m == "cam"),
            }
            for d in "ab"
            for m, v in means.items()
            for e in ("loss_image", "iou")
            for i in range(2)
        ]
    )
    ranks = summary(shown).set_index(["dataset", "metric", "method"])["rank"].sort_index()
    assert ranks["a", "iou"].to_dict() == {"cam": 2, "bla_t": 1, "random": 2, "mask": 4}
    assert ranks["a", "loss_image"].to_dict() == {"cam": 2, "bla_t": 4, "random": 2, "mask": 1}
    assert ranks["b", "iou"].to_dict() == {"cam": 1, "bla_t": 2, "random": 3, "mask": 4}


def table_of(values: dict[str, list[float]], metric: str = "iou") -> pd.DataFrame:
    """A dataset and metric: the values of each method on images 0, 1, ..., NaN where it has none."""
    rows = [("a", m, metric, i, v) for m, own in values.items() for i, v in enumerate(own)]
    return pd.DataFrame(rows, columns=["dataset", "method", "metric", "image", "value"]).dropna()


@pytest.mark.parametrize(
    ("values", "metric", "ranks"),
    [
        # The slow method has the three easy images alone: the best mean, and no rank.
        ({"rise": [0.7, 0.8, 0.9], "cam": [0.9, 0.9, 0.9, 0, 0, 0]}, "iou", {"rise": None, "cam": 1}),
        # One image decided "rank 1": a method that lacks a shared image has no rank.
        ({"rise": [NAN, 1.0, NAN], "cam": [0.5] * 8, "bla": [0.4] * 8}, "iou", {"rise": None, "cam": 1, "bla": 2}),
        # A loss: lower is better.
        ({"a": [1.0, 1, 1, 0, 0], "b": [0.5, 0.5, 0.5, 9, 9]}, "loss_image", {"a": 1, "b": 2}),
        # An image of which no method has a value, such as one without an object, is not shared.
        ({"a": [0.1, NAN, 0.3], "b": [0.3, NAN, 0.2]}, "iou", {"a": 2, "b": 1}),
        # Constant maps that are left out.
        ({"a": [0.9, 0.9, NAN, 0.9], "b": [0.1] * 8}, "lime", {"a": None, "b": 1}),
    ],
    ids=["easy images", "one image", "loss", "no object", "constant map"],
)  # fmt: skip
def test_ranks_are_over_the_images_that_all_methods_share(values, metric, ranks):
    table = summary(table_of(values, metric)).set_index("method")
    for method, rank in ranks.items():
        shared = [v for v in values[method] if not np.isnan(v)]
        assert table.loc[method, "rank"] == rank if rank else pd.isna(table.loc[method, "rank"])
        assert table.loc[method, "n"] == np.isfinite(values[method]).sum()
        if rank:
            assert table.loc[method, "ranked_mean"] == pytest.approx(np.mean(shared))
            assert table.loc[method, "ranked_n"] == len(shared)


@pytest.mark.parametrize(
    ("untrained", "ranks"),
    [
        ([], {"a": 1, "b": 2, "c": 3}),
        ([("a", "a")], {"a": None, "b": 1, "c": 2}),
        ([("a", "a"), ("a", "c")], {"a": None, "b": 1, "c": None}),
        ([("z", "a")], {"a": 1, "b": 2, "c": 3}),  # on another dataset
        ([("a", "a"), ("a", "b"), ("a", "c")], {"a": None, "b": None, "c": None}),
    ],
)
def test_a_method_that_did_not_train_has_its_mean_and_no_rank(untrained, ranks):
    values = {"a": [0.9, 0.9, 0.9], "b": [0.5, 0.6, 0.7], "c": [0, 0.1, 0.2]}
    table = summary(table_of(values), untrained).set_index("method")
    for method, rank in ranks.items():
        assert table.loc[method, "rank"] == rank if rank else pd.isna(table.loc[method, "rank"])
        assert pd.isna(table.loc[method, "ranked_mean"]) == (rank is None)
        assert table.loc[method, "mean"] == pytest.approx(np.mean(values[method]))


@pytest.mark.parametrize("metric", ["road_morf", "road_lerf"])
def test_the_parts_of_road_have_means_but_neither_ranks_nor_tests(metric):
    values = {"cam": [0.2, 0.4], "random": [0.1, 0.5]}
    table = summary(pd.concat([table_of(values, metric), table_of(values, "road")])).set_index("metric")
    assert table.loc[metric, "mean"].tolist() == pytest.approx([0.3, 0.3])
    assert table.loc[metric, ["rank", "ranked_mean"]].isna().all(axis=None)
    assert table.loc["road", "rank"].tolist() == [1, 1]
    assert compare(table_of(values, metric), ("random",)).empty
    assert len(compare(table_of(values, "road"), ("random",))) == 1


def test_agreement_with_itself_has_a_mean_but_neither_rank_nor_test():
    values = table_of({"rise": [0.7, 0.9], "random": [0.1, 0.0]}, "self_agreement")
    table = summary(values).set_index("method")
    assert table["mean"].to_dict() == pytest.approx({"rise": 0.8, "random": 0.05})
    assert table[["rank", "ranked_mean"]].isna().all(axis=None)
    assert compare(values, ("random",)).empty


def test_a_method_did_not_train_unless_its_objective_is_lower_than_that_of_a_constant_mask():
    methods = pd.DataFrame({"dataset": "a", "method": list("abcde"), "title": list("ABCDE")})
    methods = methods.assign(
        objective=[1.0, 2.0 - 1e-8, 3.0, NAN, NAN], objective_of_constant=[2.0, 2.0, 2.0, 2.0, NAN]
    )
    assert did_not_train(methods).tolist() == [False, True, True, True, False]
    table = objectives(methods).set_index("method")
    assert table["trained"].to_dict() == {"a": True, "b": False, "c": False, "d": False}
    both = pd.concat(
        [methods, methods.assign(dataset="b", objective=methods["objective"] + 9)]
    )  # each file counts from 0
    assert objectives(both).groupby("dataset")["trained"].sum().to_dict() == {"a": 1, "b": 0}


@pytest.mark.parametrize(("count", "rows"), [(1, [2]), (2, [0, 2]), (3, [0, 2, 1]), (9, [0, 2, 1]), (None, [0, 2, 1])])
def test_photographs_that_every_method_explains_are_drawn_first(count, rows):
    methods = METHODS[METHODS["method"].isin(["random", "bla_t"])].assign(objective=NAN, objective_of_constant=NAN)
    maps = {"random": np.ones((3, 2, 2)), "bla_t": np.arange(12.0).reshape(3, 2, 2)}
    maps["random"][1] = NAN
    drawn = pictures.pictures_of_photos(maps, {"bla_t": [[], [], [3]]}, (2, 2), methods, np.zeros((3, 8, 8, 3), np.uint8), ["x", "y", "z"], count)  # fmt: skip
    assert list(drawn) == rows
    figure = drawn[2]()
    assert figure.get_suptitle() == "z"
    named = {axis.get_title(): axis for axis in figure.axes}
    assert {"input", "random map", "BLA-T"} <= set(named)
    assert named["random map"].get_xlabel() == "constant"
    assert len(named["BLA-T"].patches) == 1
    if 1 in rows:
        assert [axis.get_xlabel() for axis in drawn[1]().axes if axis.get_title() == "random map"] == ["not explained"]


def test_pictures_name_methods_that_did_not_train_and_do_not_rank_them():
    methods = METHODS[METHODS["method"] != "mask"].assign(objective=NAN, objective_of_constant=NAN)
    methods.loc[methods["method"] == "bla_t", ["objective", "objective_of_constant"]] = 3.0, 2.0
    rows = [("d", m, "iou", i, v) for m, v in (("lime", 0.1), ("cam", 0.3), ("bla_t", 0.9), ("random", 0.2)) for i in range(3)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["dataset", "method", "metric", "image", "value"])
    maps = {name: np.ones((3, 2, 2)) for name in methods["method"]}
    cells = {name: values.reshape(3, 4) for name, values in maps.items()}
    empty, images = pd.DataFrame(), np.zeros((3, 8, 8, 3), np.uint8)
    draw = pictures.pictures("t", maps, cells, {}, (2, 2), methods, table, empty, empty, empty, images, np.zeros(3, int), ["cat"])  # fmt: skip
    (axis,) = draw["ranks"]().axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert [name for name in names if name.endswith(", did not train")] == ["BLA-T, did not train"]
    row = names.index("BLA-T, did not train")
    assert {text.get_position()[1]: text.get_text() for text in axis.texts}[row + 0.5] == "(0.90)"


def test_equal_means_share_a_rank_also_if_they_differ_by_rounding():
    table = summary(table_of({"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1], "c": [0, 0, 0]}))
    assert table.set_index("method")["rank"].to_dict() == {"a": 1, "b": 1, "c": 3}


def test_methods_are_compared_on_the_images_that_all_share():
    shown = per_image()
    table = compare(shown, ("random", "bla_t"))
    assert not table.duplicated(["dataset", "metric", "method", "against"]).any()
    assert len(table) == 2 * 3 * 2 * 3  # of datasets, metrics but costs, references, other methods
    assert "forwards" not in set(table["metric"])
    assert (table["method"] != table["against"]).all()
    values = shown.set_index(["dataset", "metric", "method", "image"])["value"]
    for row in table.itertuples():
        images = range(9)
        x, y = (np.array([values[row.dataset, row.metric, m, i] for i in images]) for m in (row.method, row.against))
        assert row.n == row.nonzero_pairs == len(images)
        assert row.mean_difference == pytest.approx(np.mean(x - y))
        assert row.p == pytest.approx(stats.wilcoxon(x, y, method="exact").pvalue)
        ranks = stats.rankdata(np.abs(x - y))
        assert row.rank_biserial == pytest.approx((ranks * np.sign(x - y)).sum() / ranks.sum())


def test_holm_corrects_over_the_methods_of_a_dataset_reference_and_metric():
    table = compare(per_image(), ("random", "bla_t"))
    families = [group for _, group in table.groupby(["dataset", "against", "metric"])]
    assert [len(group) for group in families] == [3] * 12
    for group in families:
        np.testing.assert_allclose(group["p_holm"], step_down(group["p"].to_numpy()))
        np.testing.assert_allclose(group["p_holm_smallest"], 3 * 2 / 2**9)  # 3 tests of 9 images


@pytest.mark.parametrize("images", [3, 5, 12])
def test_the_smallest_corrected_p_is_that_of_a_method_better_on_every_image(images):
    rng = np.random.default_rng(images)
    values = {"random": rng.random(images), "good": 2 + rng.random(images)}
    (row,) = compare(table_of(values), ("random",)).itertuples()
    assert row.p_holm == pytest.approx(row.p_holm_smallest) == pytest.approx(min(1, 2 / 2**images))


def test_pairs_that_do_not_differ_are_counted_and_one_pair_is_no_test():
    values = {"cam": [0.25] * 4, "random": [0.25] * 4, "bla": [0.5, 0.25, 0.25, 0.25], "mask": [0.5, NAN, NAN, NAN]}
    table = compare(table_of(values), ("random",))
    assert table["method"].tolist() == ["cam", "bla"]  # the mask lacks images
    assert table[["n", "nonzero_pairs", "mean_difference", "rank_biserial", "p"]].to_numpy().tolist() == [
        [4, 0, 0, 0, 1],
        [4, 1, 0.0625, 1, 1],
    ]
    assert compare(table_of({"cam": [0.25], "random": [0.5]}), ("random",)).empty


@pytest.mark.parametrize("against", [(), ("rise",)])
def test_without_the_reference_method_there_are_no_tests(against):
    table = compare(per_image(), against)
    assert len(table) == 0
    assert list(table)[-3:] == ["p", "p_holm", "p_holm_smallest"]


@pytest.mark.parametrize(("images", "methods", "answers"), [(6, 2, True), (6, 3, False), (9, 12, True), (9, 14, False)])
def test_only_families_with_enough_images_are_tested(images, methods, answers):
    better = {f"m{number}": np.arange(images) + number + 1.0 for number in range(methods - 1)}
    table = compare(table_of({"random": np.arange(images) * 1.0} | better), ("random",))
    assert len(table) == methods - 1
    # A method that is better on every image has p = 2 / 2^n, and Holm multiplies by the number of tests.
    assert (2 / 2**images * (methods - 1) < 0.05) == answers
    assert len(answerable(table, 0.05)) == (len(table) if answers else 0)


def apart(values: dict[str, list[float]], **options: object) -> pd.DataFrame:
    table = table_of(values)
    return differences(table, compare(table, ("random",)), **options)


@pytest.mark.parametrize(
    ("orders", "w", "p"),  # the chi-squared distribution with two degrees of freedom is exp(-x / 2)
    [
        ([(1, 2, 3)] * 4, 1, np.exp(-4)),
        ([(1, 2, 3)] * 3 + [(3, 2, 1)], 1 / 4, np.exp(-1)),  # rank sums 6, 8, 10
        ([(1, 2, 3), (3, 1, 2), (2, 3, 1)], 0, 1),
        ([(5, 5, 5)] * 3, 0, 1),
        ([(1, 1, 3)] * 2, 1, np.exp(-2)),  # tied ranks 1.5, 1.5, 3
    ],
)
def test_whether_methods_differ_is_friedmans_test_over_images(orders, w, p):
    values = dict(zip("abc", np.array(orders, float).T.tolist(), strict=True))
    (row,) = apart(values).itertuples()
    assert (row.n, row.methods) == (len(orders), 3)
    assert row.kendalls_w == pytest.approx(w, abs=1e-12)
    assert row.p == pytest.approx(p) == pytest.approx(row.p_holm)
    assert row.p_holm_smallest == pytest.approx(np.exp(-len(orders)))


def test_methods_that_do_not_differ_are_said_to_differ_in_five_percent_of_simulations():
    rng, found = np.random.default_rng(0), 0
    for _ in range(400):
        values = {f"m{number}": rng.normal(size=6) for number in range(17)}
        found += apart(values)["p"].iloc[0] < 0.05
    assert 0.02 <= found / 400 <= 0.08


def test_controls_the_mask_and_untrained_methods_do_not_make_methods_differ():
    methods = {"a": [1.0, 2, 3, 1], "b": [2.0, 3, 1, 2], "c": [3.0, 1, 2, 3]}
    others = {
        name: [9.0 + place] * 4 for place, name in enumerate(("random", "constant", "centre", "edges", "mask", "d"))
    }
    table = apart(methods | others, untrained=[("a", "d")])
    expected = apart(methods)
    columns = ["n", "methods", "kendalls_w", "p", "p_holm"]
    pd.testing.assert_frame_equal(table[columns], expected[columns])


def test_what_single_methods_could_have_stands_beside():
    values = {"random": [0.0] * 6} | {name: [1.0, 2, 3, 4, 5, 6] for name in "abc"}
    assert apart(values)["smallest_of_single"].tolist() == [3 * 2 / 2**6]  # three tests against random numbers
    del values["random"]
    assert apart(values)["smallest_of_single"].isna().all()  # nothing to test against


def test_two_methods_or_one_image_are_not_tested_together():
    assert apart({"a": [1.0, 2.0], "b": [2.0, 1.0]}).empty
    assert apart({"a": [1.0], "b": [2.0], "c": [3.0]}).empty
    assert list(apart({"a": [1.0]}))[-3:] == ["p", "p_holm", "p_holm_smallest"]


def stored_maps(images: int = 6, cells: int = 16) -> dict[str, np.ndarray]:
    """Output of the stage `maps` for four or more images: no slow map of image 1, a constant CAM of image 2."""
    rng = np.random.default_rng(7)
    arrays = {}
    for name, levels in (
        ("lime", 3),
        ("cam", 3),
        ("bla_t", 3),
        ("rise", 3),
        ("random", 3),
        ("centre", 3),
        ("edges", 3),
    ):
        arrays |= {f"{kind}/{name}": rng.normal(size=(images, cells)) for kind in ("maps", "noise")}
        arrays[f"random/{name}"] = rng.normal(size=(levels, images, cells))
        arrays[f"draws/{name}"] = rng.normal(size=(0 if name in ("lime", "rise") else 2, 2, images, cells))
        again = rng.normal(size=(images, cells))
        arrays[f"again/{name}"] = again if name in ("lime", "rise", "random") else np.full_like(again, NAN)
    arrays["retrained/bla_t"] = rng.normal(size=(2, images, cells))
    arrays["maps/rise"][1] = arrays["noise/rise"][1] = np.nan
    arrays["maps/cam"][2] = 0.5
    arrays["draws/cam"][0, 0, 4] = 0.5
    arrays["targets"] = np.arange(images) % 2
    return arrays


@pytest.mark.parametrize("mean", [1 / 1024, 3 / 1024, 0.1234567895])
def test_means_on_both_sides_of_a_rounding_boundary_are_ties(mean):
    rows = [
        {"dataset": "d", "method": m, "metric": "iou", "image": i, "value": v}
        for m, v in (("a", mean), ("b", mean * (1 + 1e-14)))
        for i in (0, 1)
    ]
    assert summary(pd.DataFrame(rows))["rank"].tolist() == [1, 1]


@pytest.mark.parametrize("constant_maps", ["zero", "leave_out"])
def test_maps_are_compared_with_lime_with_noisy_images_and_with_random_networks(constant_maps):
    arrays, levels = stored_maps(), ["head", "layer 1", "layer 0"]
    maps = {name: arrays[f"maps/{name}"] for name in ("lime", "cam", "bla_t", "rise", "random", "centre", "edges")}
    maps["mask"] = np.random.default_rng(8).random((6, 16))
    table, cascade = similarities(arrays, maps, levels, constant_maps, {"random", "centre"})
    values = table.set_index(["method", "metric", "image"])["value"]

    def rho(name, other, image):
        return stats.spearmanr(maps[name][image], other[image]).statistic

    for name in ("bla_t", "mask"):
        assert values[name, "lime", 3] == pytest.approx(rho(name, maps["lime"], 3))
    assert values["bla_t", "stability", 0] == pytest.approx(rho("bla_t", arrays["noise/bla_t"], 0))
    for metric, level in (("randomised_head", 0), ("randomised_network", -1)):
        assert values["rise", metric, 4] == pytest.approx(abs(rho("rise", arrays["random/rise"][level], 4)))
        draws = [arrays["random/cam"][level], *arrays["draws/cam"][:, level]]
        draws = [draw for draw in draws if np.ptp(draw[4])]  # a constant map has no order
        assert values["cam", metric, 4] == pytest.approx(np.mean([abs(rho("cam", other, 4)) for other in draws]))
    assert values["rise", "self_agreement", 4] == pytest.approx(rho("rise", arrays["again/rise"], 4))
    for metric, level in (("retrained_head", 0), ("retrained_network", 1)):
        assert values["bla_t", metric, 5] == pytest.approx(abs(rho("bla_t", arrays["retrained/bla_t"][level], 5)))
    assert np.isnan(values["rise", "lime", 1])  # without a map
    assert (values["cam", "lime", 2] == 0) if constant_maps == "zero" else np.isnan(values["cam", "lime", 2])
    own = table.dropna(subset="value").groupby("method")["metric"].unique().map(set)
    always = {"lime", "stability", "randomised_head", "randomised_network"}
    assert own["cam"] == always
    assert own["rise"] == always | {"self_agreement"}
    assert own["bla_t"] == always | {"retrained_head", "retrained_network"}
    assert (own["lime"], own["mask"]) == (always - {"lime"} | {"self_agreement"}, {"lime"})
    assert own["random"] == {"lime", "self_agreement"}  # noise and classifier mean nothing to random numbers
    assert own["centre"] == {"lime"}  # nor to what ignores the image
    assert own["edges"] == always
    assert not set(cascade["method"]) & {"random", "centre"}
    found = cascade.query("method == 'cam' and image == 3 and draw == 0").set_index("level")
    assert found["layer"].tolist() == levels
    assert found["value"].tolist() == pytest.approx([abs(rho("cam", other, 3)) for other in arrays["random/cam"]])


def test_the_mean_over_random_classifiers_has_their_deviation_and_the_number_of_images():
    draws = {0: [[0.1, 0.5], [0.3, 0.9], [0.2, NAN]], 1: [[0.7, 0.9]]}  # by level: draws x images
    points = [
        {"method": "cam", "level": level, "layer": f"layer {level}", "image": image, "draw": draw, "value": value}
        for level, of_draws in draws.items()
        for draw, values in enumerate(of_draws)
        for image, value in enumerate(values)
    ]
    first, second = mean_cascade(pd.DataFrame(points)).to_dict("records")
    assert first["mean"] == pytest.approx((0.2 + 0.7) / 2)
    assert (first["n"], first["draws"]) == (2, 3)
    assert first["standard_error"] == pytest.approx(0.25)
    assert first["deviation_draws"] == pytest.approx(np.std([0.3, 0.6, 0.2], ddof=1))
    assert (second["mean"], second["n"], second["draws"]) == (pytest.approx(0.8), 2, 1)
    assert np.isnan(second["deviation_draws"])


def test_means_are_over_images_with_a_value():
    points = pd.DataFrame({"method": ["cam"] * 3 + ["lime"], "level": 0, "value": [1.0, NAN, 4.0, NAN]})
    (row,) = means_over_images(points, ["method", "level"]).to_dict("records")
    assert (row["method"], row["mean"], row["standard_error"], row["n"]) == ("cam", 2.5, 1.5, 2)


def test_titles_follow_the_names_of_methods():
    table = with_titles(pd.DataFrame({"dataset": ["d"], "method": ["cam"], "value": [1]}), {"cam": "CAM"})
    assert table.to_dict("list") == {"dataset": ["d"], "method": ["cam"], "title": ["CAM"], "value": [1]}
    assert list(table) == ["dataset", "method", "title", "value"]


def test_figures_show_images_explained_by_every_method():
    arrays, images = stored_maps(9), RNG.integers(0, 256, (9, 28, 28, 3), dtype=np.uint8)
    methods = pd.DataFrame(
        [
            {"method": m, "title": t, "learned": m == "bla_t", "control": False, "few": False}
            for m, t in (("lime", "LIME"), ("cam", "CAM"), ("bla_t", "BLA-T"), ("rise", "RISE"))
        ]
    ).assign(objective=[NAN, NAN, 1.2, NAN], objective_of_constant=[NAN, NAN, 1.5, NAN])
    table = pd.DataFrame(
        [
            {"dataset": "d", "method": m, "metric": e, "image": i, "value": 0.1 * i}
            for m in methods["method"] for e in ("iou", "lime") for i in range(3)
        ]
    )  # fmt: skip
    points = curve_points(1)
    maps = {name.removeprefix("maps/"): values for name, values in arrays.items() if name.startswith("maps/")}
    grid = (math.isqrt(maps["lime"].shape[1]),) * 2
    own = {name: values.reshape(-1, *grid) for name, values in maps.items()}
    parts = pd.DataFrame(
        [{"classifier": "explained", "part": part, "n": 3, "effect_logit": 0.1, "standard_error_logit": 0.1} for part in ("beak", "wing")]
    )  # fmt: skip
    row = {"method": "i_gos", "title": "I-GOS", "learned": False, "control": False, "few": True}
    methods = pd.concat([methods, pd.DataFrame([row])], ignore_index=True)
    maps["i_gos"], own["i_gos"] = maps["rise"].copy(), own["rise"].copy()
    maps["i_gos"][[0, 2, 3]] = own["i_gos"][[0, 2, 3]] = NAN  # a method for few images does not decide which are shown
    points = pd.concat([points, points.assign(method="i_gos")])
    tables = methods, table, points, cascade_points(1), parts
    draw = pictures.pictures("a title", own, maps, {}, grid, *tables, images, arrays["targets"], ["cat", "dog"])
    assert set(draw) == {"lime", "maps", "ranks", "curves", "cascade", "parts"}
    assert draw["parts"]().axes[0].get_yticklabels()[1].get_text() == "wing"
    figure = draw["maps"]()
    assert "a title" in figure.get_suptitle()
    count = pictures.PICTURED
    whole = [i for i in range(9) if i != 1]
    shown = [whole[(2 * k + 1) * len(whole) // (2 * count)] for k in range(count)]
    inputs = [figure.axes[row * 6] for row in range(count)]
    missing = [figure.axes[row * 6 + 5].get_xlabel() == "not explained" for row in range(count)]
    assert missing == [image in (0, 2, 3) for image in shown]
    assert any(missing)
    names = {text.get_text() for legend in draw["curves"]().legends for text in legend.get_texts()}
    assert "BLA-T" in names
    assert "I-GOS" not in names
    for axis, image in zip(inputs, shown, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), images[image])
        assert axis.get_ylabel() == f"“{['cat', 'dog'][image % 2]}”"
    lime = draw["lime"]()
    assert len(lime.axes) == pictures.SCATTERED * 3
    rho = stats.spearmanr(arrays["maps/bla_t"][shown[0]], arrays["maps/lime"][shown[0]]).statistic
    assert lime.axes[1].get_title() == f"BLA-T\nρ = {rho:.2f}"


METHODS = pd.DataFrame(
    [
        {"method": "lime", "title": "LIME", "learned": False, "control": False},
        {"method": "bla_t", "title": "BLA-T", "learned": True, "control": False},
        {"method": "random", "title": "random map", "learned": False, "control": True},
        {"method": "mask", "title": "object mask", "learned": False, "control": True},
    ]
).assign(few=False)
TITLES = dict(zip(METHODS["method"], METHODS["title"], strict=True))
PICTURES = RNG.integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)


def chosen(count: int) -> pd.DataFrame:
    """The summary of the only method with all metrics, or of all methods."""
    return METHODS.iloc[1:2] if count == 1 else METHODS


def maps_of(count: int) -> dict[str, np.ndarray]:
    """Maps `[2, 7, 7]` by title; the second map of the random method is constant."""
    rng = np.random.default_rng(1)
    found = {title: rng.normal(size=(2, 7, 7)) for title in chosen(count)["title"]}
    if "random map" in found:
        found["random map"][1] = 0.5
    return found


def draw_maps(count: int):
    return pictures.side_by_side(PICTURES, maps_of(count), ["cat", "dog"], "a heading", (7, 7))


def draw_lime(count: int):
    maps = {title: values.reshape(2, 49) for title, values in maps_of(count).items() if title != "LIME"}
    rho = {title: np.array([0.123, NAN if title == "random map" else -0.5]) for title in maps}
    return pictures.against_lime(np.random.default_rng(2).normal(size=(2, 49)), maps, rho, ["cat", "dog"])


def curve_points(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {
                "method": m,
                "curve": c,
                "share": s,
                "mean": rng.random(),
                "standard_error": 0.1,
                "n": 20 + k - (m == "lime" and k == 5),
            }
            for k, c in enumerate(pictures.PANELS)
            for m in chosen(count)["method"]
            for s in (0, 0.5, 1)
            if (m, c) != ("mask", "insertion_blur")
        ]
    )


def scores(count: int) -> pd.DataFrame:
    """A summary: LIME has no correlation with itself; the mask has half of the images and no costs."""
    rng = np.random.default_rng(4)
    rows = [
        {"dataset": "d", "method": m, "metric": e, "image": i, "value": rng.random() * (50 if e == "forwards" else 1)}
        for e in ("iou", "lime", "forwards")
        for m in chosen(count)["method"]
        for i in range(3 if m == "mask" else 6)
        if (m, e) not in (("lime", "lime"), ("mask", "forwards"))
    ]
    return summary(pd.DataFrame(rows))


def cascade_points(count: int, fewest: int = 9) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        [
            {"method": m, "level": level, "layer": f"layer {level}", "mean": rng.random(), "standard_error": 0.05, "n": n}
            | {"draws": 1 + 2 * (level == 0), "deviation_draws": 0.1 if level == 0 else NAN}
            for m, n in zip(chosen(count)["method"], (fewest, 9, 9, 9), strict=False)
            if m != "mask"
            for level in range(3)
        ]
    )  # fmt: skip


DRAWN = {
    "maps": draw_maps,
    "lime": draw_lime,
    "curves": lambda count: pictures.curves(curve_points(count), chosen(count)),
    "ranks": lambda count: pictures.rank_map(scores(count), chosen(count), "a heading"),
    "cascade": lambda count: pictures.cascade(cascade_points(count), chosen(count), 49),
}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", DRAWN)
def test_equal_figures_have_equal_bytes(name, count, tmp_path):
    hashes = set()
    for number in range(2 if count == 4 else 1):
        save_figure(DRAWN[name](count), tmp_path / f"{number}.png", "png")
        hashes.add(hashlib.sha256((tmp_path / f"{number}.png").read_bytes()).hexdigest())
    assert len(hashes) == 1
    assert not pyplot.get_fignums()


def test_maps_are_side_by_side_and_a_constant_map_is_labelled():
    figure = draw_maps(4)
    assert len(figure.axes) == 2 * 5
    assert [axis.get_title() for axis in figure.axes[:5]] == ["input", *METHODS["title"]]
    assert [axis.get_xlabel() for axis in figure.axes] == [""] * 8 + ["constant", ""]
    assert [figure.axes[0].get_ylabel(), figure.axes[5].get_ylabel()] == ["cat", "dog"]
    assert figure.get_suptitle() == "a heading"
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), PICTURES[1])
    assert len(draw_maps(1).axes) == 2 * 2


def test_a_map_is_drawn_over_its_image_from_blue_to_red():
    image = np.zeros((1, 70, 70, 3), np.uint8)
    values = np.zeros((1, 7, 7))
    values[0, 0, 0], values[0, 6, 6] = -8, 2  # the corners; the rest in between
    shown = np.asarray(pictures.side_by_side(image, {"x": values}, ["c"], "h", (7, 7)).axes[1].images[0].get_array())
    turbo = pyplot.get_cmap("turbo")
    np.testing.assert_allclose(shown[0, 0, :3], np.array(turbo(0.0)[:3]) / 2, atol=0.01)
    np.testing.assert_allclose(shown[-1, -1, :3], np.array(turbo(1.0)[:3]) / 2, atol=0.01)
    np.testing.assert_allclose(shown[35, 35, :3], np.array(turbo(0.8)[:3]) / 2, atol=0.01)
    constant = np.asarray(
        pictures.side_by_side(image, {"x": values * 0}, ["c"], "h", (7, 7)).axes[1].images[0].get_array()
    )
    np.testing.assert_allclose(constant[..., :3], np.tile(np.array(turbo(1.0)[:3]) / 2, (70, 70, 1)), atol=0.01)


def test_the_lime_figure_has_a_dot_per_cell_and_the_correlation_as_title():
    figure = draw_lime(4)
    assert len(figure.axes) == 2 * 3
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == [f"{title}\nρ = 0.12" for title in ("BLA-T", "random map", "object mask")]
    assert titles[3:] == ["ρ = -0.50", "constant", "ρ = -0.50"]
    lime, own = np.random.default_rng(2).normal(size=(2, 49)), maps_of(4)["object mask"].reshape(2, 49)
    for row in range(2):
        dots = figure.axes[3 * row + 2].collections[0].get_offsets()
        np.testing.assert_allclose(dots, np.column_stack([lime[row], own[row]]))
    assert figure.axes[3].get_ylabel() == "dog\nweight in the map"


@pytest.mark.parametrize("count", [1, 4])
def test_each_curve_has_a_panel_with_every_method_that_has_it(count):
    given = curve_points(count)
    figure = pictures.curves(given, chosen(count))
    for number, (axis, curve) in enumerate(zip(figure.axes, pictures.PANELS, strict=True)):
        own = given[given["curve"] == curve]
        told = "24–25" if (number, count) == (5, 4) else 20 + number  # LIME has an image less there
        assert axis.get_title() == f"{pictures.PANELS[curve]} (n = {told} images)"
        done = {"deletion": "hidden", "road": "removed"}.get(curve.split("_")[0], "shown")
        assert axis.get_xlabel() == f"share of cells {done}"
        assert axis.get_ylabel() == ("accuracy" if "accuracy" in curve else "probability of the class")
        assert [line.get_label() for line in axis.lines] == [TITLES[m] for m in dict.fromkeys(own["method"])]
        for line, (_, wanted) in zip(axis.lines, own.groupby("method", sort=False), strict=True):
            np.testing.assert_allclose(line.get_xydata(), wanted[["share", "mean"]])
        (band,) = axis.collections  # of the learned method alone
        learned = own[own["method"] == "bla_t"]
        low, high = band.get_paths()[0].get_extents().intervaly
        assert low == pytest.approx((learned["mean"] - 0.1).min())
        assert high == pytest.approx((learned["mean"] + 0.1).max())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == chosen(count)["title"].tolist()


def test_ranks_are_colours_and_means_texts_and_a_mean_of_fewer_images_is_in_brackets():
    table = scores(4)
    (axis,) = pictures.rank_map(table, METHODS, "a heading").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == [
        "rank correlation with LIME ↑  (n = 6)",
        "intersection over union ↑  (n = 6)",
        "forward passes ↓  (n = 6)",
    ]
    assert [text.get_text() for text in axis.get_yticklabels()] == METHODS["title"].tolist()
    assert axis.get_title().startswith("a heading\n")
    means, ranks = (table.set_index(["method", "metric"])[column] for column in ("mean", "rank"))
    shown = np.ma.asarray(axis.collections[0].get_array()).reshape(4, 3)
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    for row, method in enumerate(METHODS["method"]):
        for column, metric in enumerate(("lime", "iou", "forwards")):
            if (method, metric) not in means:
                assert np.ma.getmaskarray(shown)[row, column]
                assert (column + 0.5, row + 0.5) not in texts
                continue
            mean = means[method, metric]
            text = f"{mean:.0f}" if mean >= 10 else f"{mean:.2f}"
            if method == "mask":
                assert texts[column + 0.5, row + 0.5] == f"({text})"
                assert np.ma.getmaskarray(shown)[row, column]
                continue
            assert texts[column + 0.5, row + 0.5] == text
            worst = 3 if metric != "lime" else 2
            assert shown[row, column] == pytest.approx((worst - ranks[method, metric]) / (worst - 1))


def test_a_single_method_has_rank_1():
    (axis,) = pictures.rank_map(scores(1), chosen(1), "h").axes
    assert set(np.asarray(axis.collections[0].get_array()).ravel()) == {1}


@pytest.mark.parametrize(("fewest", "lime"), [(9, "LIME"), (7, "LIME (7 images)"), (2, "LIME (2 images)")])
def test_the_cascade_has_a_line_per_method_and_a_tick_per_layer(fewest, lime):
    given = cascade_points(4, fewest)
    figure = pictures.cascade(given, METHODS, 49)
    (axis,) = figure.axes
    assert "over 9 images" in axis.get_title()
    assert [text.get_text() for text in axis.get_xticklabels()] == ["layer 0", "layer 1", "layer 2"]
    told = {text.get_text() for text in figure.legends[0].get_texts()}
    assert told == {lime, "BLA-T", "random map", "unrelated maps, expected"}
    (chance,) = (line for line in axis.lines if line.get_label() == "unrelated maps, expected")
    orders = np.random.default_rng(1).permuted(np.tile(np.arange(49.0), (20_000, 1)), axis=1)
    assert chance.get_ydata()[0] == pytest.approx(np.abs(spearman(orders[::2], orders[1::2])).mean(), rel=0.03)
    for bar, (_, own) in zip(axis.containers[::2], given.groupby("method", sort=False), strict=True):
        np.testing.assert_allclose(bar.lines[0].get_xydata(), own[["level", "mean"]])
        ends = np.array([segment[:, 1] for segment in bar.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, np.column_stack([own["mean"] - 0.05, own["mean"] + 0.05]))
    for bar, (_, own) in zip(axis.containers[1::2], given.groupby("method", sort=False), strict=True):
        ends = np.array([segment[:, 1] for segment in bar.lines[2][0].get_segments() if len(segment) == 2])
        np.testing.assert_allclose(ends, [[own["mean"].iloc[0] - 0.1, own["mean"].iloc[0] + 0.1]])


def test_the_cascade_draws_no_line_across_unmeasured_levels():
    given = cascade_points(4).query("method != 'lime' or level != 1")
    (axis,) = pictures.cascade(given, METHODS, 49).axes
    drawn = {bar.get_label(): np.array(bar.lines[0].get_ydata(), float) for bar in axis.containers[::2]}
    assert np.isnan(drawn["LIME"]).tolist() == [False, True, False]
    assert np.isfinite(drawn["BLA-T"]).all()


def test_a_method_has_the_same_style_in_every_figure_and_controls_are_grey():
    many = pd.DataFrame(
        [{"method": f"m{k}", "title": f"M {k}", "learned": k % 2 == 1, "control": False} for k in range(18)]
        + [{"method": f"c{k}", "title": f"C {k}", "learned": False, "control": True} for k in range(5)]
    )
    looks = pictures.looks(many)
    assert [look["label"] for look in looks.values()] == many["title"].tolist()
    assert len({(str(look["color"]), str(look["linestyle"])) for look in looks.values()}) == 23
    assert {looks[f"c{k}"]["color"] for k in range(5)} == {"0.55"}
    assert all(len(set(looks[f"m{k}"]["color"])) > 1 for k in range(18))  # no grey
    assert [looks[m]["linewidth"] for m in ("m0", "m1", "c0")] == [1.3, 2, 1]
    assert pictures.looks(many.iloc[:3]) == {name: looks[name] for name in ("m0", "m1", "m2")}


def test_the_first_set_of_an_image_is_its_hard_explanation():
    found = best_sets({"sag": [[[0, 2], [1]], [], [[3]]]}, 4)
    assert found["sag"].tolist() == [[True, False, True, False], [False] * 4, [False, False, False, True]]


def test_methods_that_are_worse_than_a_control_are_listed_by_metric_and_control():
    rows = [
        {"dataset": "d", "metric": metric, "method": method, "against": against, "n": 24, "mean_difference": difference, "p_holm": p}
        for metric, method, against, difference, p in (
            ("iou", "cam", "centre", -0.2, 0.01), ("iou", "rise", "centre", -0.1, 0.3), ("iou", "bla", "centre", 0.2, 0.01),
            ("loss_image", "cam", "centre", 0.2, 0.04), ("loss_image", "rise", "centre", -0.2, 0.01),
            ("iou", "edges", "centre", -0.9, 0.01), ("iou", "mask", "random", -0.1, 0.01), ("iou", "cam", "bla_t", -1, 0.01),
            ("iou", "cam", "random", 0.3, 0.01),
        )
    ]  # fmt: skip
    titles = {"cam": "CAM", "rise": "RISE", "bla": "BLA", "centre": "centre", "random": "random"}
    table = beaten_by_controls(pd.DataFrame(rows), titles, 0.05)
    assert table.to_dict("records") == [
        {"dataset": "d", "metric": "iou", "control": "centre", "n": 24, "methods": 3, "worse": "CAM, RISE", "significantly": "CAM"},
        {"dataset": "d", "metric": "loss_image", "control": "centre", "n": 24, "methods": 2, "worse": "CAM", "significantly": "CAM"},
    ]  # fmt: skip
