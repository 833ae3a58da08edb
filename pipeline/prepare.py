"""Stage `prepare@DATASET`: images of any kind to one array a split, in data/images/DATASET/."""

import hashlib

import pandas as pd

from bla.datasets import Split, cluttered_digits
from bla.specs import ClutteredDigits
from pipeline.files import save_array, save_table
from pipeline.paths import IMAGES
from pipeline.settings import load_settings
from pipeline.stage import data_path, run_stage


def main(dataset: str) -> None:
    """Write `{train,test}_{images,labels,masks}.npy`, `classes.csv` and `manifest.csv` (what each image is)."""
    settings = load_settings()
    spec = settings.dataset[dataset].images
    if isinstance(spec, ClutteredDigits):
        classes = [str(c) for c in spec.classes]
        splits = {split: cluttered_digits.generate(spec, split, settings.seed) for split in ("train", "test")}
    else:
        from bla.datasets import image_folder  # torch, which resizes, takes seconds to import

        folder = data_path(spec.path)
        classes = image_folder.class_names(folder)
        splits = {split: image_folder.load(spec, folder, split) for split in ("train", "test")}

    out = IMAGES / dataset
    for split, data in splits.items():
        save_array(out / f"{split}_images.npy", data.images)
        save_array(out / f"{split}_labels.npy", data.labels)
        if data.masks is not None:
            save_array(out / f"{split}_masks.npy", data.masks)
        else:  # a dataset with masks may have had this name before
            (out / f"{split}_masks.npy").unlink(missing_ok=True)
        print(f"{dataset}: {len(data.labels)} {split} images of {len(classes)} classes")
    save_table(out / "classes.csv", pd.DataFrame({"label": range(len(classes)), "name": classes}))
    save_table(out / "manifest.csv", pd.concat(_manifest(split, data) for split, data in splits.items()))


def _manifest(split: str, data: Split) -> pd.DataFrame:
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in data.images]
    return pd.DataFrame({"split": split, "label": data.labels, "source": data.sources, "pixels_sha256": hashes})


if __name__ == "__main__":
    run_stage(main)
