"""Style of all pictures.

Colours are seaborn's colour-blind palette, viridis for logits and weights, and Turbo for overlays, as in the paper.
Files carry no date, so that equal pictures have equal bytes.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

plt.rcdefaults()  # a matplotlibrc of the user changes no picture

STYLE: Any = {"svg.hashsalt": "bla", "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9, "savefig.dpi": 100}


def save_figure(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure without its date, as `kind` (png or svg), and close it."""
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plt.rc_context(STYLE):
        figure.savefig(path, format=kind, metadata=metadata, facecolor="white")
    plt.close(figure)
