"""Stage `figures`: Figure 3, in reports/figures/."""

import pandas as pd

from bla.plotting.figures import figure_three, save_figure
from pipeline.artifacts.files import replacing
from pipeline.artifacts.paths import FIGURES, TABLES
from pipeline.run.stage import run_stage


def main() -> None:
    """Draw figure3.svg and figure3.png."""
    runs = pd.read_csv(TABLES / "runs.csv")
    for kind in ("svg", "png"):
        with replacing(FIGURES / f"figure3.{kind}") as part:
            save_figure(figure_three(runs), part, kind)


if __name__ == "__main__":
    run_stage(main)
