"""Stage `prepare@DATASET`: images of any kind to one array a split, in data/images/DATASET/."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bla.base.errors import BlaError
from bla.base.specs import ClutteredDigits, ImageFolder, ImageNet, Mnist, OxfordPet, Photographs
from bla.datasets import SPLITS, Listing, Split, SplitName, mixed, scale_boxes
from pipeline.artifacts.files import fill_store, resume_store, save_array, save_table, settle_store
from pipeline.artifacts.paths import IMAGES
from pipeline.run.settings import load_settings
from pipeline.run.stage import data_path, run_stage

Files = Photographs | OxfordPet | ImageNet | ImageFolder
EDGES = ["left", "top", "right", "bottom"]


def main(dataset: str) -> None:
    """Write `{train,test}_{images,labels,masks}.npy`, `classes.csv`, `manifest.csv` and, where there are any, `boxes.csv`.

    The manifest has a row an image: split, label, where it is from, its hash, and what was done to make it plain RGB.
    """
    settings = load_settings()
    spec = settings.dataset[dataset].images
    try:
        if isinstance(spec, ClutteredDigits | Mnist):
            classes = [str(c) for c in spec.classes]
            parts = {split: _draw(spec, split, settings.seed) for split in SPLITS}
            written = [_save(dataset, split, data) for split, data in parts.items()]
        else:
            listing = find(spec)
            # Training images are stored mixed, so that blocks of neighbours can be read as random samples.
            listing.splits["train"] = mixed(listing.splits["train"])
            classes, written = listing.classes, _read(dataset, spec, listing)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.images: {error}") from error
    save_table(IMAGES / dataset / "classes.csv", pd.DataFrame({"label": range(len(classes)), "name": classes}))
    save_table(IMAGES / dataset / "manifest.csv", pd.concat(manifest for manifest, _ in written))
    boxes = pd.concat(boxes for _, boxes in written)
    if len(boxes):
        save_table(IMAGES / dataset / "boxes.csv", boxes)
    else:  # a dataset with boxes may have had this name before
        (IMAGES / dataset / "boxes.csv").unlink(missing_ok=True)
    for manifest, _ in written:
        treated = Counter(treatment for treatment in manifest["treatment"] if treatment)
        told = "".join(f"; {count} {treatment}" for treatment, count in sorted(treated.items()))
        print(f"{dataset}: {len(manifest)} {manifest['split'].iloc[0]} images of {len(classes)} classes{told}")


def _draw(spec: ClutteredDigits | Mnist, split: SplitName, seed: int) -> Split:
    """The images of a dataset that has no image files."""
    if isinstance(spec, ClutteredDigits):
        from bla.datasets import cluttered_digits

        return cluttered_digits.generate(spec, split, seed)
    from bla.datasets import mnist

    return mnist.load(spec, data_path("mnist"), split)


def _save(dataset: str, split: SplitName, data: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a split that is in memory; return its manifest, and that there are no boxes."""
    save_array(IMAGES / dataset / f"{split}_images.npy", data.images)
    save_array(IMAGES / dataset / f"{split}_labels.npy", data.labels)
    (IMAGES / dataset / f"{split}_masks.npy").unlink(missing_ok=True)  # of another dataset that had this name before
    if data.masks is not None:
        save_array(IMAGES / dataset / f"{split}_masks.npy", data.masks)
    return _manifest(split, data.labels.tolist(), data.sources, data.sha256, data.treatment), pd.DataFrame()


def find(spec: Files) -> Listing:
    """The image files of a dataset, downloaded to the data root if they are not there."""
    # Imported here, since what some of them import takes seconds.
    from bla.datasets import caltech_birds, cats_vs_dogs, image_folder, imagenet, oxford_pet, stanford_dogs

    if isinstance(spec, ImageFolder):
        return image_folder.find(spec, data_path(spec.path))
    if isinstance(spec, ImageNet):
        return imagenet.find(spec, data_path(spec.path))
    if isinstance(spec, OxfordPet):
        return oxford_pet.find(spec, data_path(spec.kind))
    modules = {"cats_vs_dogs": cats_vs_dogs, "stanford_dogs": stanford_dogs, "caltech_birds": caltech_birds}
    listing: Listing = modules[spec.kind].find(spec, data_path(spec.kind))
    return listing


def _read(dataset: str, spec: Files, listing: Listing) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Write the images of both splits; return manifests and boxes. BlaError names all files that cannot be used."""
    from bla.datasets import image_files as imagefiles

    size, names = spec.image_size, ["images", "masks"] if listing.masks else ["images"]
    filled, problems = [], []
    for split, files in listing.splits.items():
        told: list[object] = [str(listing.folder.resolve()), asdict(spec), split]
        told.append([(f.name, f.label, f.mask) for f in files])
        told.append([_state(listing.folder / name) for f in files for name in (f.name, f.mask) if name])
        told.append(Path(imagefiles.__file__).read_text())
        store = resume_store(f"images-{dataset}-{split}", told)
        arrays: dict[str, tuple[tuple[int, ...], Any]] = {"images": ((len(files), size, size, 3), np.uint8)}
        arrays |= {"masks": ((len(files), size, size), np.bool_)} if listing.masks else {}

        def chunks(start: int, split: SplitName = split) -> Iterator[tuple[list[Any], list[Any]]]:
            total = len(listing.splits[split])
            with tqdm(total=total, initial=start, desc=f"read {split} images", unit="img", disable=None) as bar:
                usable = True
                for part in imagefiles.read_images(listing, split, size, spec.resize, start):
                    usable = usable and all(part.sha256)
                    if usable:  # the store holds nothing but good images, so a killed stage tries the bad ones again
                        pixels = [part.images] if part.masks is None else [part.images, part.masks]
                        yield pixels, [*zip(part.sha256, part.treatment, part.shapes.tolist(), strict=True)]
                    bar.update(len(part.images))

        try:
            filled.append((split, store, fill_store(store, arrays, len(files), chunks)))
        except BlaError as error:
            shutil.rmtree(store)
            problems.append(str(error))
    if problems:
        raise BlaError("\n".join(problems))

    written = []
    (IMAGES / dataset / "manifest.csv").unlink(missing_ok=True)  # arrays of two preparations have none in common
    for split, store, known in filled:
        files = listing.splits[split]
        # A dataset with masks may have had this name before.
        (IMAGES / dataset / f"{split}_masks.npy").unlink(missing_ok=True)
        settle_store(store, {name: IMAGES / dataset / f"{split}_{name}.npy" for name in names})
        save_array(IMAGES / dataset / f"{split}_labels.npy", np.array([file.label for file in files], np.int64))
        hashes, treatments, shapes = zip(*known, strict=True)
        boxes = pd.DataFrame(scale_boxes(files, np.array(shapes, np.int32), size), columns=["image", *EDGES])
        boxes.insert(0, "split", split)
        labels, names_of = [file.label for file in files], [file.name for file in files]
        written.append((_manifest(split, labels, names_of, hashes, treatments), boxes))
    return written


def _state(path: Path) -> tuple[int, int] | None:
    """By which a file that was replaced differs from what it was; None for one that is missing."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _manifest(
    split: str, labels: Sequence[int], sources: Sequence[str], hashes: Sequence[str], treatments: Sequence[str]
) -> pd.DataFrame:
    return pd.DataFrame({"split": split, "label": labels, "source": sources, "sha256": hashes, "treatment": treatments})


if __name__ == "__main__":
    run_stage(main)
