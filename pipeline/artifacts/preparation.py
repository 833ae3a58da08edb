"""Preparation of images: drawn, or downloaded and read, as an array per split."""

import shutil
from pathlib import Path
from typing import Any

from bla.base.errors import BlaError
from bla.base.specs import Images
from bla.datasets import SPLITS, SplitName
from bla.datasets.sources import Drawn, Files, draw, file_states, fill_images, find
from bla.runtime.cache import cache_key, resume_store
from pipeline.artifacts.prepared import save_drawn, save_read, save_tables_of
from pipeline.run.environment import WORK, data_path


def prepare_images(folder: Path, spec: Images, seed: int) -> None:
    """Write the images of a dataset to its folder, which has the dataset's name.

    They are `{train,test}_{images,labels,masks}.npy`, `classes.csv`, `manifest.csv` and, if there are boxes,
    `boxes.csv`. The manifest has a row per image: split, label, source, hash, and its conversion to RGB.
    """
    try:
        if isinstance(spec, Drawn):
            classes, splits = draw(spec, seed, data_path)
            mask_names = splits["train"].mask_names
            written = [save_drawn(folder, split, data) for split, data in splits.items()]
        else:
            classes, mask_names, written = _read(folder, spec)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{folder.name}.images: {error}") from error
    save_tables_of(folder, classes, mask_names, written)


def _read(folder: Path, spec: Files) -> tuple[list[str], tuple[str, ...], list[Any]]:
    """Write both splits; return classes, names of masks, and `save_read`'s results. BlaError lists all bad files."""
    listing = find(spec, data_path)
    filled: dict[SplitName, tuple[Path, list[Any]]] = {}
    problems = []
    for split in SPLITS:
        # Sizes and times, because hashing takes as long as reading. The manifest has the hashes.
        key = cache_key([Path(__file__)], [spec, file_states(listing, split)], [])
        store = resume_store(WORK, f"images-{folder.name}-{split}", key)
        try:
            filled[split] = store, fill_images(store, spec, listing, split)
        except BlaError as error:
            shutil.rmtree(store)
            problems.append(str(error))
    if problems:
        raise BlaError("\n".join(problems))
    written = [save_read(folder, split, listing, spec.image_size, *filled[split]) for split in SPLITS]
    return listing.classes, listing.mask_names, written
