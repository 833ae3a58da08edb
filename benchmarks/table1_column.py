"""How much caching the features saves: a 20-run column of Table 1 against the backbone in the loop.

    python benchmarks/table1_column.py                 # the embedded data, after `make repro`
    python benchmarks/table1_column.py --synthetic     # random features at the paper's exact sizes, one column each

The authors' code sends every batch of every run through the frozen backbone again. What a run of that costs is the
median of `--steps` steps, forward pass and training step together, multiplied by the number of steps in 20 runs; the cached
column is timed whole, feature extraction included and apart. Results are appended to benchmarks/results.md.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

import pipeline  # noqa: F401  puts src on the path
from bla.backbones import extract, fold_batch_norm, load_backbone
from bla.specs import BoundedLogits, NoExplanation, Schedule
from bla.training import initial_head, train
from pipeline.files import load_array
from pipeline.paths import BACKBONES, IMAGES
from pipeline.settings import load_settings
from pipeline.stage import choose_device

RESULTS = Path(__file__).with_name("results.md")
PAPER = {"cats_vs_dogs": (18_609, 2, 2), "stanford_dogs": (12_000, 120, 5), "caltech_birds": (5_994, 200, 5)}
"""Training images, classes and epochs of the paper's datasets; maps of 49 cells and 1,280 channels."""
BLA_T = BoundedLogits("bounded_logits", "trained", 0.1, 0.98)
BL = NoExplanation("none")


def seconds(work, device: torch.device) -> float:
    """Wall time of a call, the GPU's queue included."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def columns(features, labels, classes: int, schedule: Schedule, runs: int, device: torch.device) -> tuple[float, float]:
    """Seconds of the columns BL and BLA-T on cached features."""
    seeds = list(range(runs))
    head = initial_head(seeds, features.shape[2], classes)
    return tuple(
        seconds(lambda variant=variant: train(features[None], labels, variant, head, seeds, schedule), device)
        for variant in (BL, BLA_T)
    )


def embedded(runs: int, steps: int, device: torch.device) -> list[str]:
    """The column BLA-T of cluttered_digits: cached against the backbone in the loop."""
    entry = load_settings().dataset["cluttered_digits"]
    images = load_array(IMAGES / "cluttered_digits/train_images.npy")
    labels = torch.from_numpy(load_array(IMAGES / "cluttered_digits/train_labels.npy")).to(device)
    weights = BACKBONES / "cluttered_digits.safetensors"
    extractor = fold_batch_norm(load_backbone(entry.backbone, weights, entry.images.image_size))
    chunks: list[np.ndarray] = []
    extraction = seconds(lambda: chunks.extend(extract(extractor, images, device)), device)
    features = torch.from_numpy(np.concatenate(chunks)).to(device)
    _, cached = columns(features, labels, 10, entry.training, runs, device)

    batch = entry.training.batch_size
    one_epoch = Schedule(batch, 1, entry.training.learning_rate, entry.training.dropout, entry.training.adam_epsilon)
    head = initial_head([0], features.shape[2], 10)

    def in_the_loop(step: int) -> None:
        rows = slice(step * batch % len(images), step * batch % len(images) + batch)
        found = np.concatenate(list(extract(extractor, images[rows], device)))
        train(torch.from_numpy(found)[None].to(device), labels[rows], BLA_T, head, [0], one_epoch)

    in_the_loop(0)  # warm up
    # The median, since a busy machine doubles single steps.
    a_step = float(np.median([seconds(lambda step=step: in_the_loop(step), device) for step in range(steps)]))
    all_steps = runs * entry.training.epochs * -(-len(images) // batch)
    loop = a_step * all_steps
    return [
        f"| cluttered_digits, BLA-T, {runs} runs x {entry.training.epochs} epochs x {len(images):,} images "
        f"| {cached:.1f} s (+ {extraction:.1f} s extraction, once for all columns) "
        f"| {loop:,.0f} s ({1000 * a_step:.1f} ms a step, median of {steps}, x {all_steps:,}) "
        f"| {loop / cached:.0f}x, with extraction {loop / (cached + extraction):.0f}x |"
    ]


def synthetic(runs: int, device: torch.device) -> list[str]:
    """BL and BLA-T on random features at the paper's sizes; the time does not depend on the numbers."""
    rows = []
    for name, (images, classes, epochs) in PAPER.items():
        features = torch.empty(images, 49, 1280, dtype=torch.float16)
        for chunk in features.split(512):
            chunk.copy_(torch.rand(chunk.shape))
        labels = torch.arange(images) % classes
        schedule = Schedule(32, epochs, 1e-3, 0.2, 1e-7)
        bl, bla_t = columns(features.to(device), labels.to(device), classes, schedule, runs, device)
        rows.append(
            f"| {name}: {images:,} x 49 x 1,280, {classes} classes, {epochs} epochs "
            f"| BL {bl / runs:.2f} s, BLA-T {bla_t / runs:.2f} s a run ({runs} runs timed) "
            f"| 20 runs: BL {20 * bl / runs:.0f} s, BLA-T {20 * bla_t / runs:.0f} s | |"
        )
        del features
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Cached features against the backbone in the loop.")
    parser.add_argument("--synthetic", action="store_true", help="random features at the paper's sizes")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=180, help="steps that measure the backbone in the loop")
    arguments = parser.parse_args()
    device = choose_device()
    if arguments.synthetic:
        rows = synthetic(arguments.runs, device)
    else:
        rows = embedded(arguments.runs, arguments.steps, device)
    record(["work", "cached features", "backbone in the loop, or whole column", "ratio"], rows, device)


def record(columns: list[str], rows: list[str], device: torch.device) -> None:
    """Print a table, and append it to benchmarks/results.md with the machine, versions and commit."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = found.stdout.strip() or "unknown"
    heading = (
        f"## {time.strftime('%Y-%m-%d')}, {chip} ({platform.machine()}), torch {torch.__version__}, commit {commit}"
    )
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]
    text = "\n".join([heading, "", *table, ""])
    print(text)
    with RESULTS.open("a") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
