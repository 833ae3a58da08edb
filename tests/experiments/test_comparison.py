"""Table 2, the comparison of methods, its pictures, Wilcoxon's test of many pairs, and claim 10: numpy, scipy and hand."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from scipy import stats

from bla.claims.judge import COMPARABLE, Dataset, judge_claims
from bla.experiments.faithfulness import figures as pictures
from bla.experiments.faithfulness.tables import summary, table_two, table_two_layout, table_two_tests
from bla.experiments.faithfulness.tables import tests as compare
from bla.inference import paired as statistics
from bla.inference.paired import EXACT, Column, crossed_bootstrap, wilcoxon
from bla.metrics import METRICS
from bla.metrics.rank_correlation import spearman
from bla.plotting.figures import save_figure

PUBLISHED = pd.read_csv(Path(__file__).parent.parent / "data/published_values.csv")
RNG = np.random.default_rng(0)
NAN = np.nan


def step_down(p: np.ndarray) -> np.ndarray:
    """Holm's correction, one value after the other from the smallest."""
    result, largest = np.empty(len(p)), 0.0
    for place, number in enumerate(np.argsort(p)):
        largest = max(largest, min(1, p[number] * (len(p) - place)))
        result[number] = largest
    return result


CORRELATIONS = {
    "dogs": {
        "lime": np.array([[0.9, 0.8, 0.7, 0.9]]),
        "cam": np.array([[0.2, 0.4, NAN, 0.6], [0.4, 0.6, NAN, NAN]]),
        "bla_t": np.array([[0.5, 0.1, 0.3, NAN], [0.7, 0.3, NAN, NAN]]),
    },
    "digits": {"cam": np.array([[0.1, 0.3], [0.2, 0.6]]), "bla_t": np.array([[0.0, 0.2], [NAN, NAN]])},
}
KINDS = {"dogs": "stanford_dogs", "digits": "cluttered_digits"}


def cell(table: pd.DataFrame, dataset: str, method: str) -> pd.Series:
    (found,) = table.query("dataset == @dataset and method == @method").to_dict("records")
    return found


def test_table_two_counts_constant_maps_as_0():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero")
    assert table[["dataset", "method"]].to_numpy().tolist() == [
        ["dogs", "lime"], ["dogs", "cam"], ["dogs", "bla_t"], ["digits", "cam"], ["digits", "bla_t"]
    ]  # fmt: skip
    row = cell(table, "dogs", "cam")
    images, runs = [0.3, 0.5, 0, 0.3], [1.2 / 4, 1.0 / 4]
    assert (row["n_images"], row["n_runs"]) == (4, 2)
    assert row["mean"] == pytest.approx(1.1 / 4)
    assert row["standard_error"] == pytest.approx(stats.sem(images))
    assert row["standard_error_runs"] == pytest.approx(stats.sem(runs))
    assert row["constant"] == 3 / 8
    assert cell(table, "digits", "bla_t")["mean"] == pytest.approx(0.05)


def test_table_two_leaves_constant_maps_out():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "leave_out")
    row = cell(table, "dogs", "cam")
    images, runs = [0.3, 0.5, 0.6], [0.4, 0.5]
    assert (row["n_images"], row["n_runs"]) == (3, 2)
    assert row["mean"] == pytest.approx(np.mean(images))
    assert row["standard_error"] == pytest.approx(stats.sem(images))
    assert row["standard_error_runs"] == pytest.approx(stats.sem(runs))
    assert row["constant"] == 3 / 8
    digits = cell(table, "digits", "bla_t")  # one run has no map at all
    assert (digits["n_images"], digits["n_runs"], digits["mean"]) == (2, 1, pytest.approx(0.1))
    assert np.isnan(digits["standard_error_runs"])


def test_published_values_stand_beside_the_papers_methods_on_its_kinds_of_images():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero")
    assert (cell(table, "dogs", "cam")["paper"], cell(table, "dogs", "bla_t")["paper"]) == (0.33, 0.47)
    assert table.loc[(table["dataset"] == "digits") | (table["method"] == "lime"), "paper"].isna().all()


def test_one_run_has_no_error_over_runs():
    assert np.isnan(cell(table_two(CORRELATIONS, KINDS, PUBLISHED, "zero"), "dogs", "lime")["standard_error_runs"])


def test_table_two_as_texts():
    table = table_two(CORRELATIONS, KINDS, PUBLISHED, "zero")
    layout = table_two_layout(table, {"cam": "CAM", "lime": "LIME again"})
    assert layout.columns.tolist() == ["Rank correlation with LIME", "LIME again", "CAM", "bla_t"]
    error = stats.sem([0.3, 0.5, 0, 0.3])
    assert layout.iloc[0, 0] == "dogs (n = 4)"
    assert layout.iloc[0]["CAM"] == f"0.28 ± {error:.2f}" == "0.28 ± 0.10"
    assert layout.iloc[1].tolist() == ["dogs, paper", "–", "0.33", "0.47"]
    assert layout.iloc[2].tolist()[:2] == ["digits (n = 2)", "–"]
    assert len(layout) == 3


def random_correlations(runs: int = 3, images: int = 12) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {
        name: {m: rng.normal(k / 5, 0.3, (runs, images)) for k, m in enumerate(("lime", "cam", "bla", "bla_t"))}
        for name in ("a", "b")
    }


def test_every_method_of_table_two_is_tested_against_cam():
    correlations = random_correlations()
    table = table_two_tests(correlations, "zero", 999, 5)
    assert table[["dataset", "method"]].to_numpy().tolist() == [[d, m] for d in "ab" for m in ("lime", "bla", "bla_t")]
    assert set(table["against"]) == {"cam"}
    for row in table.itertuples():
        own, cam = (correlations[row.dataset][m].mean(axis=0) for m in (row.method, "cam"))
        ranks = stats.rankdata(np.abs(own - cam))
        effect = (ranks * np.sign(own - cam)).sum() / ranks.sum()
        assert row.mean_difference == pytest.approx((own - cam).mean())
        assert row.p == pytest.approx(stats.wilcoxon(own, cam, method="exact").pvalue)
        assert row.rank_biserial == pytest.approx(effect)
        assert row.n_images == row.nonzero_pairs == 12
        assert row.runs_images_low < row.mean_difference < row.runs_images_high
        difference = correlations[row.dataset][row.method] - correlations[row.dataset]["cam"]
        (alone,) = crossed_bootstrap(difference[None], 999, 5)
        assert (row.runs_images_low, row.runs_images_high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    for _, group in table.groupby("dataset"):
        np.testing.assert_allclose(group["p_holm"], step_down(group["p"].to_numpy()))


def test_table_two_is_tested_on_what_both_methods_have_where_constant_maps_are_left_out():
    (row,) = table_two_tests({"dogs": {k: CORRELATIONS["dogs"][k] for k in ("cam", "bla_t")}}, "leave_out", 99, 0).to_dict("records")  # fmt: skip
    assert row["n_images"] == 2
    assert row["mean_difference"] == pytest.approx(np.mean([0.3, -0.3]))
    assert np.isnan(row["runs_images_low"])
    assert np.isnan(row["runs_images_high"])
    (row,) = table_two_tests({"dogs": {k: CORRELATIONS["dogs"][k] for k in ("cam", "bla_t")}}, "zero", 99, 0).to_dict("records")  # fmt: skip
    assert row["n_images"] == 4
    assert row["mean_difference"] == pytest.approx(np.mean([0.3, -0.3, 0.15, -0.3]))
    assert row["runs_images_low"] <= row["mean_difference"] <= row["runs_images_high"]


def per_image() -> pd.DataFrame:
    """Two datasets, four methods, metrics of either direction; the mask has no map of two images and no costs."""
    rng, rows = np.random.default_rng(6), []
    for dataset in ("z", "a"):
        for method, shift in (("cam", 0.2), ("bla_t", 0.5), ("random", 0.0), ("mask", 0.9)):
            for metric in ("forwards", "iou", "loss_image", "lime"):
                for image in range(9):
                    if method == "mask" and (image < 2 or metric == "forwards"):
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
        assert row.n == len(own) == (7 if row.method == "mask" else 9)
        assert row.mean == pytest.approx(own.to_numpy().mean())
        assert row.standard_error == pytest.approx(stats.sem(own))
        assert row.better == ("lower" if row.metric in ("forwards", "loss_image") else "higher")


def test_images_without_a_score_do_not_count():
    shown = pd.DataFrame(
        {"dataset": "a", "method": "cam", "metric": "iou", "image": range(4), "value": [0.25, NAN, 0.5, 0.75]}
    )
    (row,) = summary(shown).to_dict("records")
    assert (row["n"], row["mean"]) == (3, 0.5)
    assert row["standard_error"] == pytest.approx(0.25 / np.sqrt(3))


def test_the_summary_is_in_the_order_of_the_datasets_then_the_metrics_then_the_methods():
    table = summary(per_image())
    metrics = [metric.name for metric in METRICS if metric.name in set(table["metric"])]
    assert metrics == ["lime", "loss_image", "iou", "forwards"]
    methods = ["cam", "bla_t", "random", "mask"]
    wanted = [(d, m, e) for d in ("z", "a") for e in metrics for m in methods if (m, e) != ("mask", "forwards")]
    assert list(table[["dataset", "method", "metric"]].itertuples(index=False, name=None)) == wanted


def test_ranks_go_from_the_best_mean_and_equal_means_share_a_place():
    means = {"cam": 0.5, "bla_t": 0.75, "random": 0.5, "mask": 0.25}
    shown = pd.DataFrame(
        [
            {"dataset": d, "method": m, "metric": e, "image": i, "value": v + (-1) ** i / 8 + (d == "b") * (m == "cam")}
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


def test_methods_are_compared_on_the_images_that_both_have():
    shown = per_image()
    table = compare(shown, ("random", "bla_t"))
    assert not table.duplicated(["dataset", "metric", "method", "against"]).any()
    assert len(table) == 2 * 3 * 2 * 3  # of datasets, metrics but costs, references, other methods
    assert "forwards" not in set(table["metric"])
    assert (table["method"] != table["against"]).all()
    values = shown.set_index(["dataset", "metric", "method", "image"])["value"]
    for row in table.itertuples():
        images = range(2, 9) if row.method == "mask" else range(9)
        x, y = (np.array([values[row.dataset, row.metric, m, i] for i in images]) for m in (row.method, row.against))
        assert row.n == row.nonzero_pairs == len(images)
        assert row.mean_difference == pytest.approx(np.mean(x - y))
        assert row.p == pytest.approx(stats.wilcoxon(x, y, method="exact").pvalue)
        ranks = stats.rankdata(np.abs(x - y))
        assert row.rank_biserial == pytest.approx((ranks * np.sign(x - y)).sum() / ranks.sum())


def test_holm_corrects_over_metrics_and_methods_of_a_dataset_and_reference():
    table = compare(per_image(), ("random", "bla_t"))
    families = [group for _, group in table.groupby(["dataset", "against"])]
    assert [len(group) for group in families] == [9] * 4
    for group in families:
        np.testing.assert_allclose(group["p_holm"], step_down(group["p"].to_numpy()))


def test_pairs_that_do_not_differ_are_told_and_one_pair_is_no_test():
    rows = [("a", m, "iou", i, v) for m, v in (("cam", 0.25), ("random", 0.25)) for i in range(4)]
    rows += [("a", "mask", "iou", 0, 0.5), ("a", "bla", "iou", 0, 0.5), ("a", "bla", "iou", 1, 0.25)]
    table = compare(pd.DataFrame(rows, columns=["dataset", "method", "metric", "image", "value"]), ("random",))
    assert table["method"].tolist() == ["cam", "bla"]
    assert table[["n", "nonzero_pairs", "mean_difference", "rank_biserial", "p"]].to_numpy().tolist() == [
        [4, 0, 0, 0, 1],
        [2, 1, 0.125, 1, 1],
    ]


@pytest.mark.parametrize("against", [(), ("rise",)])
def test_without_the_reference_there_are_no_rows(against):
    table = compare(per_image(), against)
    assert len(table) == 0
    assert list(table)[-2:] == ["p", "p_holm"]


def normal_p(difference: np.ndarray) -> float:
    """Two-sided p of the signed-rank statistic by its mean and its variance with ties."""
    difference = difference[difference != 0]
    ranks = stats.rankdata(np.abs(difference))
    return 2 * stats.norm.sf(abs(ranks[difference > 0].sum() - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4))


@pytest.mark.parametrize("n", [2 * EXACT, 700])
@pytest.mark.parametrize("shift", [0.02, 0.15])
@pytest.mark.parametrize("ties", [False, True])
def test_wilcoxon_of_many_pairs_is_the_normal_approximation(n, shift, ties):
    rng = np.random.default_rng(7)
    x, y = rng.normal(shift, 1, n), rng.normal(0, 1, n)
    if ties:
        x, y = np.round(x), np.round(y)
    test = wilcoxon(x, y)
    assert test.p == pytest.approx(normal_p(x - y), rel=1e-9)
    assert test.p == pytest.approx(stats.wilcoxon(x, y, method="asymptotic").pvalue, rel=1e-9)
    assert test.nonzero_pairs == np.count_nonzero(x - y)
    ranks = stats.rankdata(np.abs(x - y)[x != y])
    assert test.effect_size == pytest.approx((ranks * np.sign(x - y)[x != y]).sum() / ranks.sum())
    if not ties:
        assert test.p == pytest.approx(stats.wilcoxon(x, y, method="exact").pvalue, rel=0.02)


def test_wilcoxon_is_exact_up_to_the_border_whatever_pairs_do_not_differ():
    x = np.concatenate([np.random.default_rng(9).normal(0.1, 1, 200), np.zeros(50)])
    assert wilcoxon(x, np.zeros_like(x)).p == pytest.approx(stats.wilcoxon(x[:200], method="exact").pvalue, rel=1e-9)
    more = np.append(x, 0.125)
    assert wilcoxon(more, np.zeros_like(more)).p == pytest.approx(normal_p(more), rel=1e-9)
    assert wilcoxon(x, np.zeros_like(x)).p != pytest.approx(normal_p(x), rel=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.15])
def test_wilcoxon_is_continuous_at_the_border(shift, ties, monkeypatch):
    x = np.random.default_rng(8).normal(shift, 1, EXACT)
    x = np.where(np.round(x, 1) == 0, 0.1, np.round(x, 1)) if ties else x
    exact = wilcoxon(x, np.zeros(EXACT)).p
    monkeypatch.setattr(statistics, "EXACT", EXACT - 1)
    approximate = wilcoxon(x, np.zeros(EXACT)).p
    assert approximate != exact
    assert approximate == pytest.approx(exact, rel=0.01)


LIME_RUNS, LIME_IMAGES = 5, 80


def correlated(mean: float, spread: float = 0.1, seed: int = 0) -> np.ndarray:
    """Rank correlations of some runs and images with exactly this mean."""
    values = np.random.default_rng(seed).normal(0, spread, (LIME_RUNS, LIME_IMAGES))
    return values - values.mean() + mean


def judged(kind: str, classes: int, bla_t: np.ndarray, cam: np.ndarray, **settings) -> pd.DataFrame:
    """The rows of claim 10."""
    ones = np.ones((LIME_RUNS, 20))
    columns = {key: Column(ones > 0, ones) for key in ("bl", "bl_plus", "bla_t")}
    settings = {"with_lime": {"lime": bla_t, "cam": cam, "bla_t": bla_t}} | settings
    table = judge_claims([Dataset("own", kind, classes, columns, **settings)], PUBLISHED, 0.05, 199, 0)
    return table[table["claim"] == 10].reset_index(drop=True)


def answer(kind: str, bla_t: np.ndarray, cam: np.ndarray, **settings) -> tuple[str, str]:
    (row,) = judged(kind, 10, bla_t, cam, **settings).itertuples()
    return row.holds_here, row.verdict


@pytest.mark.parametrize("kind", ["cats_vs_dogs", "stanford_dogs"])
def test_bla_t_is_comparable_with_cam_where_the_interval_of_their_difference_is_within_the_border(kind):
    cam = correlated(0.4)
    for ours in (0.4, 0.3, 0.5):
        assert answer(kind, correlated(ours, seed=1), cam) == ("yes", "reproduced")
    for ours in (0.7, 0.1):
        assert answer(kind, correlated(ours, seed=1), cam) == ("no", "not reproduced")
    for ours in (0.4 + COMPARABLE, 0.4 - COMPARABLE):
        assert answer(kind, correlated(ours, seed=1), cam) == ("inconclusive", "inconclusive")
    per_image = np.tile(np.random.default_rng(2).normal(0.4, 2, LIME_IMAGES), (LIME_RUNS, 1))
    assert answer(kind, per_image, cam) == ("inconclusive", "inconclusive")  # wide for images alone


def test_bla_t_is_closer_to_lime_than_cam_where_ranks_and_means_say_so():
    cam = correlated(0.1)
    assert answer("caltech_birds", correlated(0.4, seed=1), cam) == ("yes", "reproduced")
    assert answer("caltech_birds", correlated(0.0, seed=1), cam) == ("no", "not reproduced")
    assert answer("caltech_birds", correlated(0.1, seed=1), cam) == ("inconclusive", "inconclusive")
    assert answer("caltech_birds", cam, cam) == ("inconclusive", "inconclusive")
    # most images a little more, a few much less: the ranks say more, the mean less
    change = np.where(np.arange(LIME_IMAGES) < 6, -0.9, 0.05)
    assert stats.wilcoxon(change).pvalue < 0.05
    assert change.mean() < 0
    assert answer("caltech_birds", cam + change, cam) == ("inconclusive", "inconclusive")


@pytest.mark.parametrize(
    ("kind", "classes", "rules"),
    [
        ("cats_vs_dogs", 2, ["A and B"]),
        ("stanford_dogs", 120, ["A and B"]),
        ("caltech_birds", 200, ["C"]),
        ("cluttered_digits", 2, ["A and B"]),
        ("cluttered_digits", 10, ["A and B", "C"]),
    ],
)
def test_claim_10_is_of_a_and_b_and_of_c_and_stand_ins_stand_for_what_their_classes_allow(kind, classes, rules):
    table = judged(kind, classes, correlated(0.4, seed=1), correlated(0.4))
    assert [text.rpartition(" on ")[2] for text in table["text"]] == rules
    if kind == "cluttered_digits":
        assert set(table["verdict"]) == {"not run"}
        assert set(table["reason"]) == {"not one of the paper's datasets"}
        assert set(table["holds_here"]) <= {"yes", "inconclusive"}


def test_claim_10_tells_what_was_found_and_what_was_published():
    bla_t, cam = correlated(0.4, seed=1), correlated(0.1)
    (row,) = judged("caltech_birds", 200, bla_t, cam).itertuples()
    told = [f"{v.mean():.3f} ± {stats.sem(v.mean(axis=0)):.3f}" for v in (cam, bla_t)]
    assert row.ours == f"CAM {told[0]}, BLA-T {told[1]} (n = 80 images, 5 runs)"
    assert row.paper == "C: CAM 0.08, BLA-T 0.37"
    assert row.p == pytest.approx(stats.wilcoxon(bla_t.mean(axis=0), cam.mean(axis=0), method="exact").pvalue)
    (row,) = judged("cats_vs_dogs", 2, bla_t, cam).itertuples()
    assert row.paper == "A: CAM 0.47, BLA-T 0.37"
    assert row.p == pytest.approx(stats.wilcoxon(bla_t.mean(axis=0), cam.mean(axis=0), method="exact").pvalue)
    assert "within ±0.15" in row.test


@pytest.mark.parametrize("kind", ["cats_vs_dogs", "caltech_birds"])
def test_fewer_patterns_than_the_papers_leave_the_answer_and_take_the_verdict(kind):
    odd = ["300 patterns of LIME (paper: 1000)"]
    (row,) = judged(kind, 10, correlated(0.5, seed=1), correlated(0.4), lime_departures=odd).itertuples()
    assert (row.holds_here, row.verdict) == ("yes", "not run")
    assert row.reason == "not the paper's settings: 300 patterns of LIME (paper: 1000)"


def test_lime_departures_touch_no_other_claim():
    ones = np.ones((LIME_RUNS, 20))
    columns = {key: Column(ones > 0, ones) for key in ("bl", "bl_plus", "bla_t")}
    some = {"with_lime": {"cam": correlated(0.1), "bla_t": correlated(0.4)}}
    tables = [
        judge_claims([Dataset("own", "caltech_birds", 200, columns, **some, lime_departures=odd)], PUBLISHED, 0.05, 199, 0)
        for odd in ([], ["odd"])
    ]  # fmt: skip
    assert tables[0].query("claim == 10")["verdict"].tolist() == ["reproduced"]
    assert tables[1].query("claim == 10")["verdict"].tolist() == ["not run"]
    pd.testing.assert_frame_equal(*(table.query("claim != 10") for table in tables))


def test_without_correlations_claim_10_is_not_run():
    (row,) = judged("caltech_birds", 200, correlated(0.4), correlated(0.1), with_lime={}).itertuples()
    assert (row.holds_here, row.verdict, row.reason) == ("", "not run", "no rank correlations with LIME")


@pytest.mark.parametrize("kind", ["cats_vs_dogs", "caltech_birds"])
def test_a_constant_map_counts_as_0_in_claim_10(kind):
    bla_t, cam = correlated(0.4, seed=1), correlated(0.4)
    bla_t[:, :50], cam[2, 7] = NAN, NAN
    zeros = [np.where(np.isnan(values), 0, values) for values in (bla_t, cam)]
    left, right = judged(kind, 10, bla_t, cam), judged(kind, 10, *zeros)
    pd.testing.assert_frame_equal(left, right)
    assert "nan" not in left["ours"][0]
    assert left["holds_here"].tolist() == ["no"]


METHODS = pd.DataFrame(
    [
        {"method": "lime", "title": "LIME", "learned": False, "control": False},
        {"method": "bla_t", "title": "BLA-T", "learned": True, "control": False},
        {"method": "random", "title": "random map", "learned": False, "control": True},
        {"method": "mask", "title": "object mask", "learned": False, "control": True},
    ]
)
TITLES = dict(zip(METHODS["method"], METHODS["title"], strict=True))
PICTURES = RNG.integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)


def chosen(count: int) -> pd.DataFrame:
    """The only method that has everything, or all of them."""
    return METHODS.iloc[1:2] if count == 1 else METHODS


def maps_of(count: int) -> dict[str, np.ndarray]:
    """Maps `[2, 7, 7]` by title; the random method's second one is constant."""
    rng = np.random.default_rng(1)
    found = {title: rng.normal(size=(2, 7, 7)) for title in chosen(count)["title"]}
    if "random map" in found:
        found["random map"][1] = 0.5
    return found


def draw_maps(count: int):
    return pictures.side_by_side(PICTURES, maps_of(count), ["cat", "dog"], "a heading")


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
    """A summary in which LIME has no correlation with itself and the mask half the images and no costs."""
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


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", DRAWN)
def test_equal_pictures_are_equal_bytes(name, count, tmp_path):
    hashes = set()
    for number in range(2 if count == 4 else 1):
        save_figure(DRAWN[name](count), tmp_path / f"{number}.png", "png")
        hashes.add(hashlib.sha256((tmp_path / f"{number}.png").read_bytes()).hexdigest())
    assert len(hashes) == 1
    assert not pyplot.get_fignums()


def test_maps_stand_side_by_side_and_a_constant_one_is_called_so():
    figure = draw_maps(4)
    assert len(figure.axes) == 2 * 5
    assert [axis.get_title() for axis in figure.axes[:5]] == ["input", *METHODS["title"]]
    assert [axis.get_xlabel() for axis in figure.axes] == [""] * 8 + ["constant", ""]
    assert [figure.axes[0].get_ylabel(), figure.axes[5].get_ylabel()] == ["cat", "dog"]
    assert figure.get_suptitle() == "a heading"
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), PICTURES[1])
    assert len(draw_maps(1).axes) == 2 * 2


def test_a_map_is_laid_over_its_image_from_blue_to_red():
    image = np.zeros((1, 70, 70, 3), np.uint8)
    values = np.zeros((1, 7, 7))
    values[0, 0, 0], values[0, 6, 6] = -8, 2  # the corners; the rest in between
    shown = np.asarray(pictures.side_by_side(image, {"x": values}, ["c"], "h").axes[1].images[0].get_array())
    turbo = pyplot.get_cmap("turbo")
    np.testing.assert_allclose(shown[0, 0, :3], np.array(turbo(0.0)[:3]) / 2, atol=0.01)
    np.testing.assert_allclose(shown[-1, -1, :3], np.array(turbo(1.0)[:3]) / 2, atol=0.01)
    np.testing.assert_allclose(shown[35, 35, :3], np.array(turbo(0.8)[:3]) / 2, atol=0.01)
    constant = np.asarray(pictures.side_by_side(image, {"x": values * 0}, ["c"], "h").axes[1].images[0].get_array())
    np.testing.assert_allclose(constant[..., :3], np.tile(np.array(turbo(1.0)[:3]) / 2, (70, 70, 1)), atol=0.01)


def test_against_lime_every_cell_is_a_dot_and_the_correlation_stands_above():
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
def test_curves_have_a_panel_each_with_every_method_that_has_it(count):
    given = curve_points(count)
    figure = pictures.curves(given, chosen(count))
    for number, (axis, curve) in enumerate(zip(figure.axes, pictures.PANELS, strict=True)):
        own = given[given["curve"] == curve]
        told = "24–25" if (number, count) == (5, 4) else 20 + number  # LIME has an image less there
        assert axis.get_title() == f"{pictures.PANELS[curve]} (n = {told} images)"
        assert axis.get_xlabel() == ("share of cells hidden" if "deletion" in curve else "share of cells shown")
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


def test_ranks_are_colours_and_means_texts_and_what_is_missing_is_empty():
    table = scores(4)
    (axis,) = pictures.rank_map(table, METHODS, "a heading").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == [
        "rank correlation with LIME ↑  (n = 3–6)",
        "intersection over union ↑  (n = 3–6)",
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
            assert texts[column + 0.5, row + 0.5] == (f"{mean:.0f}" if mean >= 10 else f"{mean:.2f}")
            worst = 4 if metric == "iou" else 3
            assert shown[row, column] == pytest.approx((worst - ranks[method, metric]) / (worst - 1))


def test_one_method_alone_is_the_best():
    (axis,) = pictures.rank_map(scores(1), chosen(1), "h").axes
    assert set(np.asarray(axis.collections[0].get_array()).ravel()) == {1}


@pytest.mark.parametrize(("fewest", "told"), [(9, "(n = 9)"), (7, "(n = 7–9)")])
def test_the_cascade_has_a_line_a_method_and_a_tick_a_layer(fewest, told):
    given = cascade_points(4, fewest)
    figure = pictures.cascade(given, METHODS, 49)
    (axis,) = figure.axes
    assert told in axis.get_title()
    assert [text.get_text() for text in axis.get_xticklabels()] == ["layer 0", "layer 1", "layer 2"]
    told = {text.get_text() for text in figure.legends[0].get_texts()}
    assert told == {"LIME", "BLA-T", "random map", "unrelated maps, expected"}
    (chance,) = (line for line in axis.lines if line.get_label() == "unrelated maps, expected")
    orders = np.random.default_rng(1).permuted(np.tile(np.arange(49.0), (20_000, 1)), axis=1)
    assert chance.get_ydata()[0] == pytest.approx(np.abs(spearman(orders[::2], orders[1::2])).mean(), rel=0.03)
    for bar, (_, own) in zip(axis.containers, given.groupby("method", sort=False), strict=True):
        np.testing.assert_allclose(bar.lines[0].get_xydata(), own[["level", "mean"]])
        ends = np.array([segment[:, 1] for segment in bar.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, np.column_stack([own["mean"] - 0.05, own["mean"] + 0.05]))


def test_the_cascade_draws_no_line_over_a_level_that_was_not_measured():
    given = cascade_points(4).query("method != 'lime' or level != 1")
    (axis,) = pictures.cascade(given, METHODS, 49).axes
    drawn = {bar.get_label(): np.array(bar.lines[0].get_ydata(), float) for bar in axis.containers}
    assert np.isnan(drawn["LIME"]).tolist() == [False, True, False]
    assert np.isfinite(drawn["BLA-T"]).all()


def test_a_method_looks_the_same_whatever_is_drawn_and_controls_are_grey():
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
