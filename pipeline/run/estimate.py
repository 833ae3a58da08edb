"""Estimates of download, disk space and time before a run on photographs: `python -m pipeline.run.estimate DATASET ...`.

Rates are measured on this machine, in some seconds; only the speed of the connection is an assumption.
"""

import importlib
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from bla.base.errors import BlaError
from bla.base.paper import VARIANTS
from bla.base.specs import ImageFolder, ImageTable, OxfordPet, Photographs, height_and_width
from bla.datasets import ImageFile, Listing
from bla.datasets.image_files import read_images
from bla.datasets.sources import find
from bla.explainers.posthoc.lime import LIME
from bla.explainers.posthoc.rise import RISE
from bla.explainers.registry import explainer_class
from bla.method.initialisation import initial_head
from bla.method.training import train
from bla.networks.backbones import build_backbone, extract
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import batch_size_for
from pipeline.artifacts.features import FEATURES
from pipeline.artifacts.images import IMAGES
from pipeline.run.dataset_entry import DatasetEntry
from pipeline.run.environment import WORK, choose_device, data_path
from pipeline.run.methods import method_settings
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import run_stage

Planned = Photographs | OxfordPet | ImageFolder | ImageTable

MEGABYTES_A_SECOND = 10
"""Assumed speed of the connection."""


PAPER_VARIANTS = ["l2x_f", "bla", "bla_t", "bla_ph", "bla_ph_released", "bla_ph_reloaded"]
"""The variants of `make paper`, as in the Makefile. BL and BL+ (pooled features) take no time."""


EXPLAINED = {"images": 100, "slow_images": 40, "check_images": 5}
"""Numbers of images that `make paper` explains, as in the Makefile."""


FEW = {"i_gos": 1400, "i_gos_pp": 5200, "sag": 200}
"""About how many forward passes an image takes by methods for few images, a gradient counted as two (faithfulness.csv)."""


def main(*datasets: str) -> None:
    """Print the estimate for photographs, all of the paper or none; BlaError if the disk has too little space."""
    settings = load_settings()
    entries = {name: settings.dataset[name] for name in datasets}
    of_paper = {isinstance(entry.images, Photographs) for entry in entries.values()}
    if len(of_paper) != 1 or not all(isinstance(entry.images, Planned) for entry in entries.values()):
        raise BlaError(
            "estimates are for the paper's datasets (cats_vs_dogs, stanford_dogs, caltech_birds) or for oxford_pet "
            "and your own images (image_folder, image_table)"
        )
    if of_paper == {True}:
        explained = settings.faithfulness.model_copy(update=EXPLAINED)
        settings = settings.model_copy(update={"faithfulness": explained, "variants": PAPER_VARIANTS})
    device, total = choose_device(), np.zeros(3)
    measured: dict[str, tuple[float, float, float, int, int]] = {}
    for name, entry in entries.items():
        key = f"{entry.backbone.architecture} {entry.images.image_size}"
        if key not in measured:
            measured[key] = _rates(entry, settings.runs, device)
        total += _plan(name, entry, settings, *measured[key])
    raw = data_path(".")
    raw.mkdir(parents=True, exist_ok=True)
    free = min(shutil.disk_usage(place).free for place in (raw, Path()))
    download, disk, seconds = total
    # arrays that an interrupted run has already written
    places = [folder / name for folder in (IMAGES, FEATURES) for name in entries]
    places += [store for name in entries for kind in ("images", "features") for store in WORK.glob(f"{kind}-{name}-*")]
    disk -= min(disk, sum(path.stat().st_size for place in places for path in place.rglob("*.npy")))
    print(
        f"in all: {download / 1e9:.1f} GB to download to {raw}, {disk / 1e9:.0f} GB of disk ({free / 1e9:.0f} GB are "
        f"free), roughly {_duration(seconds + download / MEGABYTES_A_SECOND / 1e6)} on this machine ({device}) with a "
        f"connection of {MEGABYTES_A_SECOND} MB/s, without the fits of learned methods and the short stages. "
        "Ctrl-C stops at any time; the same command resumes.",
        flush=True,
    )
    if disk > free:
        raise BlaError(f"{raw}: {disk / 1e9:.0f} GB are needed, {free / 1e9:.0f} GB are free; free some space")


def _plan(
    name: str,
    entry: DatasetEntry,
    settings: Settings,
    reading: float,
    extraction: float,
    training: float,
    cells: int,
    channels: int,
) -> tuple[float, float, float]:
    """Print a line for a dataset; return bytes to download, bytes of disk, seconds of work. Rates are per image."""
    runs, numbers = settings.runs, cells * channels
    train, test, sizes = _counts(name, entry.images)
    explained = _passes_to_explain(settings, test, cells, channels)
    folder = data_path(entry.images.kind)
    unpacked = {file: folder / re.sub(r"\.(tar|tgz|zip)$", "", file) for file in sizes}
    to_download = sum(n for file, n in sizes.items() if not (folder / file).exists() and not unpacked[file].is_dir())
    passes = train * entry.backbone.draws + test
    images, features = (train + test) * math.prod(height_and_width(entry.images.image_size)) * 3, passes * numbers * 2
    disk = to_download + sum(n for file, n in sizes.items() if not unpacked[file].is_dir()) + images + features
    times = (
        (train + test) * reading,
        passes * extraction,
        len(settings.variants) * entry.training.epochs * train * training,
        explained * extraction,
    )
    print(
        f"{name}: {train + test:,} images; download {to_download / 1e9:.2f} GB; disk {disk / 1e9:.1f} GB "
        f"({features / 1e9:.1f} GB for features); reading {_duration(times[0])}, extraction {_duration(times[1])} "
        f"({entry.backbone.draws} draws), {runs} runs of {len(settings.variants)} variants {_duration(times[2])}, explanations "
        f"{_duration(times[3])} ({explained:,} forward passes)",
        flush=True,
    )
    return to_download, disk, sum(times)


def _counts(name: str, images: Any) -> tuple[int, int, dict[str, int]]:
    """Training images, test images, and the bytes of each file to download; one's own images are looked up."""
    if isinstance(images, ImageFolder | ImageTable):
        try:
            splits = find(images, data_path).splits
        except BlaError as error:
            raise BlaError(f"params.yaml: dataset.{name}.images: {error}") from error
        return len(splits["train"]), len(splits["test"]), {}
    module = importlib.import_module(f"bla.datasets.{images.kind}")
    sizes = {source.name: source.size or 0 for source in module.SOURCES}
    return module.COUNTS["train"], module.COUNTS["test"], sizes


def _passes_to_explain(settings: Settings, test: int, cells: int, channels: int) -> int:
    """The approximate number of forward passes of LIME, slow methods, their checks, and curves, on `test` images at most."""
    spec, lime = settings.faithfulness, int(method_settings(settings, "lime", LIME.Settings).patterns)
    rise = int(method_settings(settings, "rise", RISE.Settings).masks)
    methods = len(settings.explainers) + len(settings.variants) + 1
    curves = 2 * 2 * (cells // spec.cells_at_once + 2) * methods * (1 + spec.orders) // 2
    slow = (rise if "rise" in settings.explainers else 0) + (channels if "score_cam" in settings.explainers else 0)
    images, slow_images, checked = (min(n, test) for n in (spec.images, spec.slow_images, spec.check_images))
    checks = checked * (4 * lime + 3 * slow)  # LIME also a second time
    kinds = {name: method_settings(settings, name, explainer_class(name).Settings) for name in FEW if name in settings.explainers}  # fmt: skip
    few = sum(min(images, int(kind.images)) * FEW[name] for name, kind in kinds.items())
    passes: int = images * lime + slow_images * (slow + curves) + checks + few
    return passes


def _rates(entry: DatasetEntry, runs: int, device: torch.device) -> tuple[float, float, float, int, int]:
    """Seconds per image to read, to extract once, and to train all runs for an epoch; then its cells and channels."""
    size = height_and_width(entry.images.image_size)
    with TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((500, 375)).save(Path(folder) / "photo.jpg", quality=90)
        listing = Listing(Path(folder), ["noise"], {"train": [ImageFile("photo.jpg", 0)] * 64})
        reading = _seconds(lambda: list(read_images(listing, "train", size, "bilinear"))) / 64 / (os.cpu_count() or 1)
    extractor = fold_batch_norm(build_backbone(entry.backbone, size).eval())
    batch = np.zeros((2 * batch_size_for(device, size), *size, 3), np.uint8)
    extraction = _seconds(lambda: list(extract(extractor, batch, device))) / len(batch)
    _, cells, channels = extractor(torch.from_numpy(batch[:1]).to(device)).shape
    timed = runs if device.type == "cuda" else 2  # a CPU trains few runs at a time
    features = torch.rand(1, 1024, cells, channels).half().to(device)
    labels = torch.zeros(1024, dtype=torch.long, device=device)
    head, schedule = initial_head(range(timed), channels, 100), replace(entry.training, epochs=1)
    training = _seconds(lambda: train(features, labels, VARIANTS["bla_t"], head, range(timed), schedule)) / 1024
    return reading, extraction, training * runs / timed, cells, channels


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of the second call; the first one warms up."""
    work()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


if __name__ == "__main__":
    run_stage(lambda: main, "estimate", sys.argv[1:])
