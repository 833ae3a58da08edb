"""Writing of images, labels, masks, manifest and boxes to the folder of a dataset, by the stages that prepare images."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bla.base.atomic import save_array
from bla.datasets import Listing, Split, SplitName, label_array, scale_boxes
from bla.runtime.cache import settle_store
from pipeline.artifacts.arrays import load_array
from pipeline.artifacts.tables import save_table

EDGES = ["left", "top", "right", "bottom"]
Written = tuple[pd.DataFrame, pd.DataFrame]
"""A split's manifest, a row per image, and its boxes, a row per box."""


def save_drawn(folder: Path, split: SplitName, data: Split) -> Written:
    """Write a split from memory; it has no boxes."""
    save_array(folder / f"{split}_images.npy", data.images)
    save_array(folder / f"{split}_labels.npy", data.labels)
    (folder / f"{split}_masks.npy").unlink(missing_ok=True)  # of an earlier dataset of this name
    if data.masks is not None:
        save_array(folder / f"{split}_masks.npy", data.masks)
    manifest = _manifest(folder, split, data.labels.tolist(), data.sources, data.sha256, data.treatment)
    return manifest, pd.DataFrame()


def save_read(
    folder: Path, split: SplitName, listing: Listing, size: int | tuple[int, int], store: Path, notes: list[Any]
) -> Written:
    """Move the arrays of a filled store to their final places; `notes` are those of `fill_images`."""
    files, names = listing.splits[split], ["images", "masks"] if listing.masks else ["images"]
    (folder / "manifest.csv").unlink(missing_ok=True)  # it would not match the new arrays
    (folder / f"{split}_masks.npy").unlink(missing_ok=True)  # of an earlier dataset of this name
    settle_store(store, {name: folder / f"{split}_{name}.npy" for name in names})
    labels = label_array([file.label for file in files], len(listing.classes))
    save_array(folder / f"{split}_labels.npy", labels)
    hashes, treatments, shapes = zip(*notes, strict=True)
    boxes = pd.DataFrame(scale_boxes(files, np.array(shapes, np.int32), size), columns=["image", *EDGES])
    boxes.insert(0, "split", split)
    shown = [" ".join(map(str, f.label)) if isinstance(f.label, tuple) else f.label for f in files]
    manifest = _manifest(folder, split, shown, [f.name for f in files], hashes, treatments)
    return manifest, boxes


def save_tables_of(folder: Path, classes: list[str], mask_names: Sequence[str], written: Sequence[Written]) -> None:
    """Write classes, names of masks, manifest and boxes of both splits, and print how many images were converted."""
    if (folder / "train_masks.npy").exists():
        save_table(folder / "masks.csv", pd.DataFrame({"mask": range(len(mask_names)), "name": mask_names}))
    else:  # of an earlier dataset of this name, with masks
        (folder / "masks.csv").unlink(missing_ok=True)
    save_table(folder / "classes.csv", pd.DataFrame({"label": range(len(classes)), "name": classes}))
    manifest = pd.concat(manifest for manifest, _ in written)
    manifest["in_both_splits"] = manifest.groupby("pixels_sha256")["split"].transform("nunique") > 1
    save_table(folder / "manifest.csv", manifest)
    boxes = pd.concat(boxes for _, boxes in written)
    if len(boxes):
        save_table(folder / "boxes.csv", boxes)
    else:  # of an earlier dataset of this name, with boxes
        (folder / "boxes.csv").unlink(missing_ok=True)
    if shared := manifest.loc[manifest["in_both_splits"], "pixels_sha256"].nunique():
        photographs = "photograph is" if shared == 1 else "photographs are"
        print(f"{folder.name}: {shared} {photographs} in both splits (column in_both_splits of manifest.csv)")
    for manifest, _ in written:
        treated = Counter(treatment for treatment in manifest["treatment"] if treatment)
        done = "".join(f"; {count} {treatment}" for treatment, count in sorted(treated.items()))
        print(f"{folder.name}: {len(manifest)} {manifest['split'].iloc[0]} images of {len(classes)} classes{done}")


def _manifest(
    folder: Path,
    split: str,
    labels: Sequence[int | str],
    sources: Sequence[str],
    hashes: Sequence[str],
    treatments: Sequence[str],
) -> pd.DataFrame:
    """A row per image. `pixels_sha256` is the hash of its prepared pixels, which a file that was saved again shares."""
    images = load_array(folder / f"{split}_images.npy")
    pixels = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    columns = {"label": labels, "source": sources, "sha256": hashes, "pixels_sha256": pixels, "treatment": treatments}
    return pd.DataFrame({"split": split, **columns})
