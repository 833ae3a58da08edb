"""All metrics of variants and learned methods over their runs: one table.

Values are averaged over runs within an image first; means, standard errors and tests are over images. The spread over
runs stands beside, with the number of runs.
"""

from collections.abc import Collection

import pandas as pd

from bla.experiments.faithfulness.tables import summary, tests

REFERENCE = ("bla_t",)
"""The paper's method, against which the others are tested."""


def over_runs(per_run: pd.DataFrame, untrained: Collection[tuple[str, str]] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means, a row per dataset, method and metric, and the tests against `REFERENCE`, from rows with a `run` each.

    `per_run` has the columns dataset, method, metric, image, run, value. Means have the columns of `summary`;
    `n_runs`, and `deviation_runs`, the standard deviation over runs of the mean over images, NaN for one run.
    """
    by = ["dataset", "method", "metric"]
    per_image = per_run.groupby([*by, "image"], sort=False)["value"].mean().reset_index()
    of_runs = per_run.groupby([*by, "run"], sort=False)["value"].mean()
    spread = of_runs.groupby(by, sort=False).agg(deviation_runs="std", n_runs="count").reset_index()
    return summary(per_image, untrained).merge(spread, on=by), tests(per_image, REFERENCE)
