"""The explanation browser of a record: one page with every photograph and all methods' maps (docs/browser.md)."""

import numpy as np
import torch
from numpy.typing import NDArray

from bla.base.errors import BlaError
from bla.networks.patches import Grid, cell_means
from bla.own_classifier.record import ExplanationRecord, MethodResult
from bla.report.browser.builder import browser_page
from bla.report.browser.records import Collection, Method, Predictions, mean_distance


def browse(record: ExplanationRecord, title: str = "Explanations") -> str:
    """The browser's page as HTML; maps are averaged over the cells of the feature map, and over runs.

    White frames surround the cells that most runs explain. Raises BlaError for a record without methods.
    """
    if not record.results:
        raise BlaError("the record has no method; explain with at least one")
    count, known = len(record.names), record.expected >= 0
    true = np.zeros((count, len(record.labels)), bool)
    true[np.flatnonzero(known), record.expected[known]] = True
    of_true = np.where(known, record.probabilities[np.arange(count), record.expected], np.nan)
    predictions = Predictions(
        record.predicted,
        record.probabilities.max(axis=1),
        -np.log(np.maximum(of_true, 1e-30)),
        record.predicted == record.expected if known.all() else None,
    )
    methods = [_method(name, result, record, predictions) for name, result in record.results.items()]
    return browser_page([Collection(title, record.pixels, record.names, record.labels, true, methods)], title)


def _method(name: str, result: MethodResult, record: ExplanationRecord, predictions: Predictions) -> Method:
    runs = np.stack([_in_cells(of_run, result.hard.shape[2:]) for of_run in result.maps])
    return Method(
        name,
        result.title,
        runs.mean(axis=0),
        predictions,
        kept=result.hard.mean(axis=0) >= 0.5,
        explained=record.target,
        spread=mean_distance(runs) if len(runs) > 1 else None,
        control=result.control,
    )


def _in_cells(maps: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Maps `[N, H, W]` averaged over the cells of a grid, or enlarged to it where they are coarser."""
    values = torch.from_numpy(np.ascontiguousarray(maps)).double()
    if any(side < cells for side, cells in zip(values.shape[1:], grid, strict=True)):
        values = torch.nn.functional.interpolate(values[:, None], grid, mode="nearest")[:, 0]
    return cell_means(values, grid).numpy()
