"""One table of learned methods: values are averaged over runs within an image, then over images."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bla.experiments.faithfulness.runs import over_runs

COLUMNS = ["dataset", "method", "metric", "image", "run", "value"]


def per_run(values, metric="iou"):
    """Rows of one metric from values `[R][M]` by method, with gaps as NaN."""
    return pd.DataFrame(
        [
            ("birds", method, metric, image, run, value)
            for method, of_runs in values.items()
            for run, of_images in enumerate(of_runs)
            for image, value in enumerate(of_images)
            if value == value
        ],
        columns=COLUMNS,
    )


def row(table, method):
    return table[table["method"] == method].iloc[0]


def test_means_are_over_images_and_the_spread_is_over_runs():
    table, _ = over_runs(per_run({"bla_t": [[0.1, 0.3], [0.3, 0.9]], "l_cam_fm": [[0.5, 0.5]]}))
    both = row(table, "bla_t")
    assert both[["n", "n_runs", "rank"]].tolist() == [2, 2, 2]
    assert both["mean"] == pytest.approx(0.4)  # images: .2, .6
    assert both["standard_error"] == pytest.approx(0.2)
    assert both["deviation_runs"] == pytest.approx(np.std([0.2, 0.6], ddof=1))
    assert row(table, "l_cam_fm")["n_runs"] == 1
    assert np.isnan(row(table, "l_cam_fm")["deviation_runs"])


def test_more_runs_do_not_count_as_more_images():
    one = {"bla_t": [[0.1, 0.3, 0.2]], "l2x_f": [[0.5, 0.6, 0.4]]}
    means, tests = over_runs(per_run(one))
    more_means, more_tests = over_runs(per_run({name: values * 20 for name, values in one.items()}))
    pd.testing.assert_frame_equal(tests, more_tests)
    assert more_means["n"].tolist() == means["n"].tolist()
    np.testing.assert_allclose(more_means["standard_error"], means["standard_error"])


def test_the_test_is_wilcoxons_over_images_of_the_means_over_runs():
    rng = np.random.default_rng(0)
    values = {"bla_t": rng.random((5, 12)), "l_cam_fm": rng.random((2, 12)), "l2x_f": rng.random((3, 12)) + 0.4}
    _, tests = over_runs(per_run(values))
    assert set(tests["against"]) == {"bla_t"}
    for found in tests.itertuples():
        difference = values[found.method].mean(axis=0) - values["bla_t"].mean(axis=0)
        assert found.p == pytest.approx(stats.wilcoxon(difference).pvalue)
        assert found.mean_difference == pytest.approx(difference.mean())
    assert row(tests, "l2x_f")["p_holm"] == pytest.approx(2 * row(tests, "l2x_f")["p"])


def test_an_untrained_method_has_a_mean_and_no_rank():
    table, _ = over_runs(per_run({"bla_t": [[0.1, 0.3]], "l_cam_img": [[0.9, 0.9]]}), {("birds", "l_cam_img")})
    assert row(table, "l_cam_img")["mean"] == pytest.approx(0.9)
    assert pd.isna(row(table, "l_cam_img")["rank"])
    assert row(table, "bla_t")["rank"] == 1


def test_order_of_rows_does_not_matter():
    rows = per_run({"bla_t": [[0.1, 0.3, 0.5], [0.3, 0.9, 0.1]], "l2x_f": [[0.2, 0.1, 0.7], [0.4, 0.6, 0.3]]})
    for table, shuffled in zip(over_runs(rows), over_runs(rows.sample(frac=1, random_state=1)), strict=True):
        both = [t.sort_values(["method"]).reset_index(drop=True) for t in (table, shuffled)]
        pd.testing.assert_frame_equal(*both)
