"""How many masks RISE needs: rank correlation of two maps of an image from different masks, in rise_masks.csv.

python benchmarks/rise_masks.py                       # after `make repro`; 20 minutes on two cores

Sixteen maps of 500 masks each are made of six test images. Means of 1, 2, 4 or 8 of them are maps of 500 to 4,000 masks.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

import pipeline  # noqa: F401  puts src on the path
from bla.explainers.interface import cell_maps
from bla.explainers.posthoc.rise import RISE
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_explained
from pipeline.artifacts.features import load_grid
from pipeline.run.settings import load_settings

DATASET, IMAGES, PARTS, MASKS = "painted_birds", 6, 16, 500


def main() -> None:
    """Write the table: number of masks, mean correlation over images, its standard error, n."""
    settings = load_settings()
    explained = load_explained(DATASET, settings)
    rows = np.linspace(0, len(explained.images) - 1, IMAGES).astype(int)
    images, classifier = explained.images[rows], explained.classifier_of(settings.faithfulness.run)
    with torch.no_grad():
        targets = classifier(images)[0].argmax(dim=1)
    method = RISE(classifier, RISE.Settings(masks=MASKS))
    maps = []
    for part in tqdm(range(PARTS), unit="part"):
        seeds = torch.tensor([derive_seed(9, "rise", int(row), part) for row in rows])
        maps.append(cell_maps(method, images, targets, seeds, load_grid(DATASET)).numpy())
    table = []
    for parts in (1, 2, 4, 8):
        means = np.array(maps).reshape(PARTS // parts, parts, IMAGES, -1).mean(axis=1)
        values = [
            np.mean([spearmanr(a[i], b[i]).statistic for a, b in zip(means[::2], means[1::2], strict=True)])
            for i in range(IMAGES)
        ]
        table.append((MASKS * parts, np.mean(values), np.std(values, ddof=1) / IMAGES**0.5, IMAGES))
    frame = pd.DataFrame(table, columns=["masks", "correlation", "standard_error", "n_images"])
    frame.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.3f")
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
