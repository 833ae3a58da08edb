"""Stage `planted_bias`: a cue goes with one class in training alone; do methods show that the classifier uses it?"""

from functools import partial

import numpy as np
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.experiments.related_methods.planted_bias.figures import chart
from bla.experiments.related_methods.planted_bias.tables import bias_table, mass_on_the_cue, use_of_the_cue
from bla.metrics.interventions import weight_on_part
from bla.plotting.maps import side_by_side
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, Pictures, remove_others, save_pictures
from pipeline.artifacts.images import captions, load_labels
from pipeline.artifacts.tables import save_tables
from pipeline.maps.planted_bias import CUED, BiasedTraining
from pipeline.run.entries import running
from pipeline.run.settings import Settings, load_settings

PICTURES = FIGURES / "planted_bias"
DRAWN = 4
"""Images in the picture of maps."""


def main() -> None:
    """Write planted_bias.csv, and the pictures planted_bias/chart.png and planted_bias/DATASET.png."""
    settings, rows, pictures = load_settings(), list[dict[str, object]](), Pictures()
    for dataset in running(settings, "planted_bias"):
        try:
            rows += _measure(dataset, settings, pictures)
        except BlaError as error:
            raise BlaError(f"params.yaml: planted_bias: {dataset}: {error}") from error
    table = bias_table(rows)
    save_tables("planted_bias", {"": table})
    pictures[PICTURES / "chart.png"] = partial(chart, table)
    save_pictures(pictures)
    remove_others(PICTURES, pictures)
    print(table[["dataset", "method", "against", "value", "other", "p_holm"]].to_string(index=False))


def _measure(dataset: str, settings: Settings, pictures: Pictures) -> list[dict[str, object]]:
    """The rows of a dataset; its picture of maps is added to `pictures`."""
    entry = settings.dataset[dataset]
    if entry.backbone.tail != "pooled" or entry.backbone.stochastic_depth or entry.training.images_in_memory:
        print(f"{dataset}: left out: a cue needs tail pooled, stochastic_depth 0 and images_in_memory null")
        return []
    if load_labels(dataset, "test").ndim > 1:
        print(f"{dataset}: left out: images have several classes, so a cue cannot go with one of them")
        return []
    bias, drawn = BiasedTraining(dataset, settings), {}
    rows = [{"method": "bl", "title": "BL"} | row for row in use_of_the_cue(bias.predicted())]
    area = bias.masks.mean(axis=(1, 2))
    shown = np.linspace(0, len(bias.numbers), DRAWN + 1, dtype=int)[:-1] + len(bias.numbers) // (2 * DRAWN)
    for method in (bar := tqdm(bias.maps(), f"{dataset} planted bias", disable=None)):
        bar.set_description(f"{dataset} planted bias, {method.name}")
        biased, unbiased = (np.stack([weight_on_part(of, bias.masks) for of in maps]) for maps in (method.biased, method.unbiased))  # fmt: skip
        named = {"method": method.name, "title": method.title}
        rows += [named | row for row in mass_on_the_cue(biased, unbiased, area)]
        drawn[method.title] = method.biased[0, shown]
    names = captions(dataset)
    labels = load_labels(dataset, "test")[bias.numbers[shown]]
    heading = f"{dataset}, run 0 of the classifier trained with the cue: maps of “{names[CUED]}”".replace("\n", " ")
    images = bias.images[shown].cpu().numpy()
    of_images = [f"true: {names[label]}" for label in labels.astype(int)]
    draw = partial(side_by_side, images, drawn, of_images, heading, load_grid(dataset))
    pictures[PICTURES / f"{dataset}.png"] = draw
    return [{"dataset": dataset} | row for row in rows]
