"""Stage `prepare@DATASET`: images of any kind to one array a split, in data/images/DATASET/."""

import shutil
from pathlib import Path
from typing import Any

from bla.base.errors import BlaError
from bla.base.specs import ClutteredDigits, Mnist
from bla.datasets import OBJECT, SPLITS, SplitName
from bla.datasets.sources import Files, draw, file_states, fill_images, find
from bla.runtime.cache import cache_key, resume_store
from pipeline.artifacts.prepared import save_drawn, save_read, save_tables_of
from pipeline.run.environment import WORK, data_path
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Write `{train,test}_{images,labels,masks}.npy`, `classes.csv`, `manifest.csv` and, where there are any, `boxes.csv`.

    The manifest has a row an image: split, label, where it is from, its hash, and what was done to make it plain RGB.
    """
    settings = load_settings()
    spec = settings.dataset[dataset].images
    try:
        if isinstance(spec, ClutteredDigits | Mnist):
            classes, mask_names = [str(c) for c in spec.classes], OBJECT
            written = [save_drawn(dataset, s, data) for s, data in draw(spec, settings.seed, data_path).items()]
        else:
            classes, mask_names, written = _read(dataset, spec)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.images: {error}") from error
    save_tables_of(dataset, classes, mask_names, written)


def _read(dataset: str, spec: Files) -> tuple[list[str], tuple[str, ...], list[Any]]:
    """Write the images of both splits; return the classes, the names of masks, and what `save_read` does. BlaError names all bad files."""
    listing = find(spec, data_path)
    filled: dict[SplitName, tuple[Path, list[Any]]] = {}
    problems = []
    for split in SPLITS:
        # By size and time: hashing the files would take as long as reading them. The manifest has their hashes.
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
