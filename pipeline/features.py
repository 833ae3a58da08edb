"""Stage `features@DATASET`: the extractor's feature maps, once for all trainings, in data/features/DATASET/."""

import math

import torch
from tqdm import tqdm

from bla.backbones import extract, load_backbone
from bla.errors import BlaError
from pipeline.files import load_array, save_array, save_chunks
from pipeline.paths import BACKBONES, FEATURES, IMAGES
from pipeline.settings import load_settings
from pipeline.stage import choose_device, run_stage


def main(dataset: str) -> None:
    """Write `{train,test}_features.npy`, half precision `[N, n, C]`, and `{train,test}_labels.npy` beside them."""
    entry = load_settings().dataset[dataset]
    extractor = load_backbone(entry.backbone, BACKBONES / f"{dataset}.safetensors", entry.images.image_size)
    device = choose_device()
    batch_size = 32 if device.type == "cpu" else 512
    cells, channels = extractor(torch.zeros(1, *[entry.images.image_size] * 2, 3, dtype=torch.uint8)).shape[1:]
    for split in ("train", "test"):
        images = load_array(IMAGES / dataset / f"{split}_images.npy")
        batches = math.ceil(len(images) / batch_size)
        chunks = tqdm(extract(extractor, images, device, batch_size), f"{split} features", batches, disable=None)
        try:
            save_chunks(FEATURES / dataset / f"{split}_features.npy", chunks, (len(images), cells, channels), "float16")
        except BlaError as error:
            raise BlaError(f"{dataset}, {split}: {error}") from error
        save_array(FEATURES / dataset / f"{split}_labels.npy", load_array(IMAGES / dataset / f"{split}_labels.npy"))
    print(f"{dataset}: {cells} cells of {channels} channels")


if __name__ == "__main__":
    run_stage(main)
