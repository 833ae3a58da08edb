"""Stage `prepare@DATASET`: the images of a dataset as an array per split, in data/images/DATASET/."""

import shutil
from pathlib import Path
from typing import Any

from bla.base.errors import BlaError
from bla.base.specs import Mnist, PaintedBirds
from bla.datasets import SPLITS, SplitName
from bla.datasets.sources import Files, draw, file_states, fill_images, find
from bla.runtime.cache import cache_key, resume_store
from pipeline.artifacts.prepared import save_drawn, save_read, save_tables_of
from pipeline.run.environment import WORK, data_path
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write `{train,test}_{images,labels,masks}.npy`, `classes.csv`, `manifest.csv` and, if there are boxes, `boxes.csv`.

    The manifest has a row per image: split, label, source, hash, and its conversion to RGB.
    """
    settings = load_settings()
    spec = settings.dataset[dataset].images
    try:
        if isinstance(spec, PaintedBirds | Mnist):
            classes, splits = draw(spec, settings.seed, data_path)
            mask_names = splits["train"].mask_names
            written = [save_drawn(dataset, split, data) for split, data in splits.items()]
        else:
            classes, mask_names, written = _read(dataset, spec)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.images: {error}") from error
    save_tables_of(dataset, classes, mask_names, written)


def _read(dataset: str, spec: Files) -> tuple[list[str], tuple[str, ...], list[Any]]:
    """Write both splits; return classes, names of masks, and `save_read`'s results. BlaError lists all bad files."""
    listing = find(spec, data_path)
    filled: dict[SplitName, tuple[Path, list[Any]]] = {}
    problems = []
    for split in SPLITS:
        # Sizes and times, because hashing takes as long as reading. The manifest has the hashes.
        key = cache_key([Path(__file__)], [spec, file_states(listing, split)], [])
        store = resume_store(WORK, f"images-{dataset}-{split}", key)
        try:
            filled[split] = store, fill_images(store, spec, listing, split)
        except BlaError as error:
            shutil.rmtree(store)
            problems.append(str(error))
    if problems:
        raise BlaError("\n".join(problems))
    written = [save_read(dataset, split, listing, spec.image_size, *filled[split]) for split in SPLITS]
    return listing.classes, listing.mask_names, written
