"""SAG's minimal sufficient sets of a dataset: their graphs, and hard explanations of the variants beside them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bla.base.specs import BoundedLogits, PaintedBirds
from bla.experiments.related_methods.structure import measures
from bla.experiments.related_methods.structure.figures import CHOICE, SUFFICIENT
from bla.experiments.related_methods.structure.graph import Graph, attention_graph
from bla.experiments.related_methods.structure.tables import beside_random, mean_sizes, of_sufficient, proportion
from bla.explainers.structured.sag import ShownCells, corner_masks
from bla.explainers.sufficient_sets import LEVEL, Cells, run_together, verify
from bla.networks.patches import Grid
from bla.report.graph_page import GraphOfImage
from bla.runtime.seeds import derive_seed
from pipeline.artifacts.explained_images import load_explained
from pipeline.artifacts.features import explained_features, load_grid
from pipeline.artifacts.images import class_names
from pipeline.artifacts.maps import MAPS, load_maps, load_sets
from pipeline.maps.all_runs import explained_by
from pipeline.maps.interventions import EXPLAINED, Interventions
from pipeline.run.settings import Settings

Array = NDArray[np.float64]
METHOD, SPARE, CONFIDENCE = "sag", "cells_to_spare", "relative_confidence"


@dataclass(frozen=True)
class Explanations:
    """The images of a dataset that SAG explained: numbers, pixels, explained classes, probabilities, sets and graphs."""

    numbers: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    classes: list[str]
    right: NDArray[np.bool_]
    shown: ShownCells
    sets: list[measures.ImageSets]
    graphs: list[Graph]
    grid: Grid

    def table(self) -> pd.DataFrame:
        """M9, a row per image."""
        named = {"image": self.numbers, "class": self.classes, "right": self.right, "confidence": self.shown.whole.numpy()}  # fmt: skip
        rows = pd.DataFrame([measures.image_row(of) for of in self.sets]).astype({"smallest_set": "Int64"})
        return pd.concat([pd.DataFrame(named), rows], axis=1)

    def of_images(self) -> list[GraphOfImage]:
        """The images with their graphs, for the page and the pictures."""
        black = [of.black if of.black_suffices else None for of in self.sets]
        each = zip(
            self.numbers.tolist(), self.pixels, self.classes, self.shown.whole.tolist(), self.graphs, black, strict=True
        )
        return [GraphOfImage(*of_image) for of_image in each]

    def as_json(self) -> list[dict[str, object]]:
        """For each image its number, class, probability, sets with confidences and verdicts, and graph."""
        named = [{"image": of.number, "class": of.class_name, "probability": of.probability} for of in self.of_images()]
        pairs = zip(named, self.sets, self.graphs, strict=True)
        return [row | {"grid": self.grid} | asdict(sets) | {"graph": asdict(graph)} for row, sets, graph in pairs]


def explanations(dataset: str, settings: Settings) -> Explanations | None:
    """SAG's sets from the stage `maps`, evaluated again one by one; None if SAG explained no image of the dataset."""
    explained, grid = load_explained(dataset, settings), load_grid(dataset)
    arrays = load_maps(MAPS / f"{dataset}.safetensors", "maps", dataset, explained.numbers)
    sets = load_sets(dataset).get(METHOD, [])
    rows = np.array([row for row, of_image in enumerate(sets) if of_image], dtype=np.int64)
    if not len(rows):
        return None
    targets, pixels = arrays["targets"][rows], explained.images[torch.from_numpy(rows).to(explained.images.device)]
    shown = ShownCells(explained.classifier_of(settings.faithfulness.run), pixels, torch.from_numpy(targets), grid)
    found = [sets[row] for row in rows]
    verdicts = run_together([verify(of_image) for of_image in found], shown.relative)
    black = shown.relative(list(range(len(found))), [Cells()] * len(found))
    graphs = run_together([attention_graph(*pair) for pair in zip(found, verdicts, strict=True)], shown.relative)
    values = iter(shown.relative([i for i, of in enumerate(found) for _ in of], [Cells(cells) for of in found for cells in of]))  # fmt: skip
    images = [measures.ImageSets(of, [next(values) for _ in of], verdict, alone) for of, verdict, alone in zip(found, verdicts, black, strict=True)]  # fmt: skip
    names, labels = class_names(dataset), np.asarray(explained.labels)[rows]
    right = labels == targets if labels.ndim == 1 else labels[np.arange(len(rows)), targets]
    return Explanations(explained.numbers[rows], pixels.cpu().numpy(), [names[int(k)] for k in targets], right, shown, images, graphs, grid)  # fmt: skip


def hard_beside_minimal(
    dataset: str, settings: Settings, found: Explanations
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, measures.Hard]]:
    """The hard explanations of bounded-logit variants beside SAG's sets: quantities, relations, and those of the run measured."""
    rows, relations, of_run = list[dict[str, object]](), list[dict[str, object]](), {}
    explain, run = explained_by(dataset, settings), settings.faithfulness.run
    different = [measures.different(of.sufficient) for of in found.sets]
    counted, several = [not of.black_suffices for of in found.sets], [len(of_image) > 1 for of_image in different]
    for name in settings.variants:
        if not isinstance(settings.variant[name], BoundedLogits):
            continue
        given = explain[name](found.numbers)
        random = measures.random_sets(given.hard, derive_seed(settings.seed, dataset, "structure", name))
        first = {"dataset": dataset, "method": name, "title": given.title}
        quantities = [_quantities(dataset, found, different, hard, run) for hard in (given.hard, random)]
        for quantity in quantities[0]:
            ours, theirs = (of[quantity] for of in quantities)
            most = np.inf if quantity == CONFIDENCE else 1
            compared = of_sufficient(ours, theirs) if quantity == SPARE else beside_random(ours, theirs, most)
            images = several if quantity == CHOICE else counted
            sufficient = np.isfinite(ours) if quantity == SPARE else None
            rows.append(first | mean_sizes(given.hard[:, images], run, sufficient) | {"quantity": quantity} | compared)
        for label, hard in (("hard", given.hard), ("random", random)):
            kinds = [measures.relation(cells, of_image) for of_run in hard for cells, of_image in zip(of_run, different, strict=True) if of_image]  # fmt: skip
            relations.append(first | {"set": label, "n": len(kinds)} | {kind: kinds.count(kind) / len(kinds) if kinds else np.nan for kind in measures.COVER})  # fmt: skip
        of_run[name] = given.hard[run]
    return pd.DataFrame(rows), pd.DataFrame(relations), of_run


def _quantities(
    dataset: str, found: Explanations, different: list[list[list[int]]], hard: measures.Hard, run: int
) -> dict[str, Array]:
    """Of hard explanations `[R, N, n]`, `[R, N]` each: sufficient as patches, sufficient as cells of the feature map, cells to
    spare (of the run measured, `[N]`), and the share of other runs that choose the same of an image's `different` sets.

    Images where the black image alone suffices are left out: there any cells suffice.
    """
    counted = [image for image, of_image in enumerate(found.sets) if not of_image.black_suffices]
    pairs = [[(image, Cells(np.flatnonzero(of_run[image]).tolist())) for image in counted] for of_run in hard]
    unique = sorted({pair for of_run in pairs for pair in of_run}, key=lambda pair: (pair[0], sorted(pair[1])))
    shown = found.shown.relative([i for i, _ in unique], [s for _, s in unique]) if unique else []
    values = dict(zip(unique, shown, strict=True))
    confidence = np.array([[values[pair] for pair in of_run] for of_run in pairs])
    result = {SUFFICIENT: (confidence >= LEVEL).astype(float), CONFIDENCE: confidence}
    if found.shown.classifier.is_pooled:
        result["sufficient_in_feature_map"] = _on_feature_map(dataset, found, hard)[:, counted]
    spare = [measures.cells_to_spare(sorted(cells), values[image, cells]) for image, cells in pairs[run]]
    result[SPARE] = np.array(run_together(spare, lambda n, sets: found.shown.relative([counted[i] for i in n], sets)))
    if len(hard) > 1:
        several = [image for image, sets_of_image in enumerate(different) if len(sets_of_image) > 1]
        chosen = [measures.same_choice(measures.choices(hard[:, image], different[image])) for image in several]
        result[CHOICE] = np.stack(chosen, axis=1) if chosen else np.empty((len(hard), 0))
    return result


def _on_feature_map(dataset: str, found: Explanations, hard: measures.Hard) -> Array:
    """Whether the explained head keeps 0.9 of its confidence on the mean of the kept cells' features, `[R, N]`."""
    shown = found.shown
    device, head = shown.images.device, shown.classifier.linear_head()
    features = explained_features(dataset, found.numbers).float().to(device)
    weights = torch.from_numpy(np.concatenate([np.ones_like(hard[:1]), hard])).float().to(device)
    weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1)
    pooled = torch.einsum("rbn,bnc->rbc", weights, features)
    likely = shown.classifier.probabilities((pooled @ head.weight[0].T + head.bias[0]).double())
    of_target = likely.gather(2, shown.targets[None, :, None].expand(len(likely), -1, 1))[..., 0].cpu().numpy()
    return np.asarray(of_target[1:] >= LEVEL * of_target[0], dtype=np.float64)


def decisive_parts(
    dataset: str, settings: Settings, found: Explanations, hard: dict[str, measures.Hard], titles: dict[str, str]
) -> pd.DataFrame:
    """Which sets show the painted parts without which the explained classifier predicts another class; empty elsewhere.

    Images without a sufficient set are left out.
    """
    counted = np.array([bool(of.sufficient) for of in found.sets])
    if not isinstance(settings.dataset[dataset].images, PaintedBirds) or not counted.any():
        return pd.DataFrame()
    hard = {name: of_run[counted] for name, of_run in hard.items()}
    explained = load_explained(dataset, settings)
    arrays = load_maps(MAPS / f"{dataset}.safetensors", "maps", dataset, explained.numbers)
    every = Interventions(dataset, settings, explained, arrays["targets"])
    rows = np.flatnonzero(np.isin(explained.numbers, found.numbers[counted]))
    decisive, parts = every.changes[EXPLAINED][rows], every.masks[rows]
    cells = len(next(iter(hard.values()))[0]) if hard else found.grid[0] * found.grid[1]
    smallest, union = np.zeros((2, len(rows), cells), bool)
    for image, sets in enumerate(of.sufficient for of in found.sets if of.sufficient):
        smallest[image, sets[0]] = True
        union[image, sorted({cell for cells in sets for cell in cells})] = True
    kept = {"sag": smallest, "sag_all": union} | hard
    pixels = partial(_pixels, grid=found.grid, size=found.pixels.shape[1:3])
    held = measures.held_parts({name: pixels(sets) for name, sets in kept.items()}, parts, decisive)
    table = []
    for name, shown in kept.items():
        seed = derive_seed(settings.seed, dataset, "parts", name)
        random = measures.random_sets(np.repeat(shown[None], 20, axis=0), seed)
        by_chance = [measures.held_parts({"": pixels(of)}, parts, decisive)[""].mean() for of in random] if len(held[name]) else [np.nan]  # fmt: skip
        share, low, high = proportion(int(held[name].sum()), len(held[name]))
        table.append({"dataset": dataset, "method": name, "title": titles[name], "n_parts": len(held[name]), "n_images": len(rows), "cells": shown.sum(axis=1).mean(), "share_held": share, "low": low, "high": high, "random": np.mean(by_chance)})  # fmt: skip
    return pd.DataFrame(table)


def node_masks(sets: list[list[int]], grid: Grid, size: Sequence[int]) -> Array:
    """The share `[P, H, W]` of each pixel that sets of cells show, as SAG shows them."""
    patterns = np.zeros((len(sets), grid[0] * grid[1]), bool)
    for pattern, cells in zip(patterns, sets, strict=True):
        pattern[cells] = True
    return _pixels(patterns, grid, size)


def _pixels(sets: measures.Hard, grid: Grid, size: Sequence[int]) -> Array:
    """The share `[M, H, W]` of each pixel that sets `[M, n]` show."""
    numbers = torch.arange(len(sets))
    masks = corner_masks(torch.from_numpy(sets).float().view(-1, 1, *grid), size)
    return masks(numbers, torch.zeros_like(numbers)).double().numpy()
