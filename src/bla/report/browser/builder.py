"""The explanation browser: one HTML file, read from disk, without network and server.

    text = browser_page([Collection(...), ...], "Explanations")       # records.py says what it holds

Thumbnails are tiles of a few JPEG sheets, maps are signed 8-bit cells; the page's scripts draw both on canvases.
"""

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bla.report.browser.records import Collection, Floats, Method, Predictions, mean_distance, shares

FOLDER = Path(__file__).parent
SCRIPTS = ("data.js", "drawing.js", "address.js", "grid.js", "browser.js")
"""In the order in which they run."""
SIDE, SMALL_SIDE, MANY_IMAGES = 112, 64, 2000
"""Pixels of a thumbnail's longer side; the small one if there are more than this many images."""
BLOCK = 16
"""Sides of tiles are multiples of a JPEG block, so that no tile colours its neighbour."""
TILES = 10
"""Tiles in a row, and in a column, of a sheet."""
QUALITY = 70
COMMON_TOP = 0.95
"""The quantile of the maps' largest shares at which the common colour scale ends."""


def browser_page(collections: Sequence[Collection], title: str, home: str = "") -> str:
    """The page as HTML; `home` is the address of the page to which it leads back, none if empty.

    Raises BlaError if arrays do not fit each other.
    """
    for collection in collections:
        collection.check()
    side = SIDE if sum(len(collection.images) for collection in collections) <= MANY_IMAGES else SMALL_SIDE
    data = {
        "collections": [_collection(collection, side) for collection in collections],
        "top": common_top([method for collection in collections for method in collection.methods]),
    }
    parts = {name: (FOLDER / f"browser.{name}").read_text(encoding="utf-8") for name in ("html", "css")}
    return Template(parts["html"]).substitute(
        title=html.escape(title),
        home=f'<a href="{html.escape(home)}">All reports</a>' if home else "",
        style=parts["css"],
        data=json_for_html(data),
        script="\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS),
    )


def json_for_html(value: Any) -> str:
    """JSON that no text in it can end: a `<` within a script element is written as its code."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def common_top(methods: Sequence[Method]) -> float:
    """The share of a map's weight at which the common colour scale ends: 95 % of all maps have no larger share."""
    largest = [np.abs(shares(method.maps[method.computed])).max(axis=(1, 2), initial=0) for method in methods]
    every = np.concatenate(largest)
    return float(np.quantile(every, COMMON_TOP)) if len(every) and every.max() > 0 else 1.0


def sheets(images: NDArray[np.uint8], side: int) -> tuple[list[bytes], tuple[int, int]]:
    """JPEG files with `TILES` x `TILES` thumbnails each, row by row, and the width and height of a thumbnail.

    Images `[N, H, W, 3]` are never made larger than the next multiple of a block.
    """
    _, height, width, _ = images.shape
    scale = min(1, side / max(height, width))
    tile = (_blocks(width * scale), _blocks(height * scale))
    files = []
    for first in range(0, len(images), TILES * TILES):
        part = images[first : first + TILES * TILES]
        rows = -(-len(part) // TILES)
        sheet = Image.new("RGB", (min(len(part), TILES) * tile[0], rows * tile[1]))
        for place, image in enumerate(part):
            row, column = divmod(place, TILES)
            small = Image.fromarray(np.asarray(image)).resize(tile, Image.Resampling.LANCZOS)
            sheet.paste(small, (column * tile[0], row * tile[1]))
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)  # colours of full resolution
        files.append(file.getvalue())
    return files, tile


def cells_of(maps: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Maps `[M, h, w]` as int8 `[M, h * w]` from -127 to 127, and the largest |share| `[M]` that 127 stands for."""
    flat = shares(maps).reshape(len(maps), -1)
    largest = np.abs(flat).max(axis=1, initial=0)
    scaled = 127 * flat / np.where(largest > 0, largest, 1)[:, None]
    return np.rint(scaled).astype(np.int8), largest


def disagreement(methods: Sequence[Method]) -> Floats | None:
    """The `mean_distance` `[N]` between the methods that explain every image; None with fewer than two, and without controls."""
    every = [method.maps for method in methods if method.computed.all() and not method.control]
    return mean_distance(np.stack(every)) if len(every) > 1 else None


def _collection(collection: Collection, side: int) -> dict[str, Any]:
    files, tile = sheets(collection.images, side)
    different = list({id(method.predictions): method.predictions for method in collection.methods}.values())
    places = {id(predictions): place for place, predictions in enumerate(different)}
    labels = collection.labels
    several = (
        [np.flatnonzero(row).tolist() for row in labels] if labels.ndim > 1 else [[label] for label in labels.tolist()]
    )
    return {
        "name": collection.name,
        "classes": list(collection.classes),
        "files": list(collection.files),
        "labels": several,
        "grid": collection.methods[0].maps.shape[1:],
        "shape": collection.images.shape[1:3],
        "tile": tile,
        "tiles": TILES,
        "sheets": [f"data:image/jpeg;base64,{base64.b64encode(file).decode()}" for file in files],
        "disagreement": _packed(disagreement(collection.methods), "<f4"),
        "predictions": [_predictions(predictions) for predictions in different],
        "methods": [_method(method, places[id(method.predictions)]) for method in collection.methods],
    }


def _predictions(given: Predictions) -> dict[str, str | None]:
    return {
        "classes": _packed(given.classes, "<i4"),
        "probabilities": _packed(given.probabilities, "<f4"),
        "losses": _packed(given.losses, "<f4"),
        "right": _packed(given.right, "u1"),
    }


def _method(method: Method, predictions: int) -> dict[str, Any]:
    """The record of a method; cells, tops and kept cells only of the images with a map, whose numbers are `images`."""
    computed = method.computed
    cells, tops = cells_of(method.maps[computed])
    kept = None if method.kept is None else np.packbits(method.kept[computed].reshape(len(cells), -1), axis=1)
    return {
        "name": method.name,
        "title": method.title,
        "control": method.control,
        "predictions": predictions,
        "images": None if computed.all() else _packed(np.flatnonzero(computed), "<i4"),
        "cells": _packed(cells, "i1"),
        "tops": _packed(tops, "<f4"),
        "kept": _packed(kept, "u1"),
        "explained": _packed(method.explained, "<i4"),
        "spread": _packed(method.spread, "<f4"),
    }


def _packed(values: NDArray[Any] | None, kind: str) -> str | None:
    """Base64 of the numbers as `kind`, little-endian; None stays None."""
    return None if values is None else base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _blocks(pixels: float) -> int:
    return BLOCK * max(1, math.ceil(pixels / BLOCK))
