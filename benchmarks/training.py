"""Time and memory of training on cached features.

    python benchmarks/training.py                   # on the embedded data, after `make repro`, and on random features
    python benchmarks/training.py --dataset photos  # only benchmark 1, on any prepared dataset of params.yaml
    python benchmarks/training.py --paper           # only benchmark 5, on random features of the paper's sizes

1. One column of Table 1, and all columns, against the backbone in the loop: the authors' code sends every batch of every
   run through the frozen backbone again. The loop is extrapolated: the median time of `--steps` steps (forward pass and
   training step) times the number of steps. Cached columns are timed completely, with and without feature extraction.
2. Runs that train together against runs that train one by one.
3. A sweep of 20 settings of temperature and threshold against one setting.
4. How the time grows with images, cells, channels, classes and runs: the exponent of a power law, by least squares.
5. Table 1 at the paper's sizes: the time, and the peak memory beyond the features.

The time does not depend on the values of the features. Results are appended to benchmarks/results.md.
"""

import argparse
import resource
import sys
import threading
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psutil
import torch
from results import record, seconds

import pipeline  # noqa: F401  puts src on the path
from bla.base.paper import VARIANTS
from bla.base.specs import BoundedLogits, NoExplanation, Schedule, Variant
from bla.method.initialisation import initial_head
from bla.method.training import train, train_sweep
from bla.networks.backbones import extract, load_backbone
from bla.networks.folding import fold_batch_norm
from bla.runtime.memory import keep_freed_memory
from pipeline.artifacts.images import load_images, load_labels
from pipeline.artifacts.models import BACKBONES
from pipeline.run.environment import choose_device
from pipeline.run.settings import load_settings

PAPER = {"cats_vs_dogs": (18_609, 2, 2), "stanford_dogs": (12_000, 120, 5), "caltech_birds": (5_994, 200, 5)}
"""Training images, classes and epochs of the paper's datasets; maps of 49 cells and 1,280 channels."""
TABLE_ONE: dict[str, Variant] = {"BL": NoExplanation(explanation="none")}
TABLE_ONE |= {name: VARIANTS[key] for name, key in {"L2X-F": "l2x_f", "BLA": "bla", "BLA-T": "bla_t", "BLA-PH": "bla_ph"}.items()}  # fmt: skip
"""The paper's five columns, 20 runs each."""
BLA_T = VARIANTS["bla_t"]
SCHEDULE = Schedule(batch_size=32, epochs=1, learning_rate=1e-3, dropout=0.2, adam_epsilon=1e-7)
"""One epoch as the paper trains."""
SWEEP = [BoundedLogits(explanation="bounded_logits", head="trained", temperature=t, threshold_factor=f) for t, f in product((0.03, 0.1, 0.3, 1), (0, 0.5, 0.9, 0.98, 1.2))]  # fmt: skip


def features_of(
    images: int, cells: int = 49, channels: int = 1280, classes: int = 20
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random half-precision features `[1, images, cells, channels]`, and labels."""
    features = torch.empty(1, images, cells, channels, dtype=torch.float16)
    for chunk in features[0].split(512):
        chunk.copy_(torch.rand(chunk.shape))
    return features, torch.arange(images) % classes


def columns(features, labels, classes: int, schedule: Schedule, runs: int, device: torch.device) -> dict[str, float]:
    """Seconds of each column of Table 1 on cached features."""
    seeds, found = list(range(runs)), {}
    head = initial_head(seeds, features.shape[3], classes)
    for name, variant in TABLE_ONE.items():
        found[name] = seconds(lambda v=variant: train(features, labels, v, head, seeds, schedule), device)
    return found


def against_the_loop(dataset: str, runs: int, steps: int, device: torch.device) -> None:
    """Columns of a dataset: cached against the backbone in the loop."""
    entry = load_settings().dataset[dataset]
    images = load_images(dataset, "train")
    labels = torch.from_numpy(np.array(load_labels(dataset, "train"))).to(device)
    weights = BACKBONES / f"{dataset}.safetensors"
    extractor = fold_batch_norm(load_backbone(entry.backbone, weights, entry.images.image_size))
    chunks: list[np.ndarray] = []
    extraction = seconds(lambda: chunks.extend(extract(extractor, images, device)), device)
    features = torch.from_numpy(np.concatenate(chunks))[None].to(device)
    classes = int(labels.max()) + 1
    cached = columns(features, labels, classes, entry.training, runs, device)

    batch = entry.training.batch_size
    one_epoch = replace(entry.training, epochs=1)
    head = initial_head([0], features.shape[3], classes)

    def in_the_loop(step: int, variant: Variant) -> None:
        rows = slice(step * batch % len(images), step * batch % len(images) + batch)
        found = np.concatenate(list(extract(extractor, images[rows], device)))
        train(torch.from_numpy(found)[None].to(device), labels[rows], variant, head, [0], one_epoch)

    in_the_loop(0, BLA_T)  # warm up
    all_steps = runs * entry.training.epochs * -(-len(images) // batch)
    # The median, because on a busy machine single steps can take twice as long.
    a_step = {
        name: float(np.median([seconds(lambda s=step, v=variant: in_the_loop(s, v), device) for step in range(steps)]))
        for name, variant in TABLE_ONE.items()
    }
    rows = []
    for what, names in (("BLA-T", ["BLA-T"]), ("all five columns", list(TABLE_ONE))):
        ours, loop = sum(cached[n] for n in names), sum(a_step[n] for n in names) * all_steps
        rows.append(
            f"| {dataset}, {what}, {runs} runs x {entry.training.epochs} epochs x {len(images):,} images "
            f"| {ours:.1f} s (+ {extraction:.1f} s extraction, once) | {loop:,.0f} s "
            f"({1000 * loop / all_steps / len(names):.1f} ms a step, median of {steps}, x {all_steps * len(names):,}) "
            f"| {loop / ours:.0f}x, with extraction {loop / (ours + extraction):.0f}x |"
        )
    record(["work", "cached features", "backbone in the loop", "ratio"], rows, device)


def together(device: torch.device) -> None:
    """Runs and settings that train together, compared with one by one."""
    rows = []
    for what, channels, images, runs in (("7x7x96", 96, 2400, 20), ("7x7x1280", 1280, 640, 20)):
        features, labels = (t.to(device) for t in features_of(images, channels=channels))
        schedule, seeds = SCHEDULE, list(range(runs))
        head = initial_head(seeds, channels, 20)

        def fit(variants, group=None, data=(features, labels), rest=(head, seeds, schedule)) -> None:
            train_sweep(*data, variants, *rest, group=group)

        fit([BLA_T])  # warm up
        best = {
            name: min(seconds(lambda v=variants, g=group: fit(v, g), device) for _ in range(repeats))
            for name, variants, group, repeats in (
                ("together", [BLA_T], None, 3),
                ("one by one", [BLA_T], 1, 3),
                ("sweep", SWEEP, None, 1),
            )
        }
        size = f"{what}, {images:,} images, {runs} runs"
        rows += [
            f"| {size}: a group at once, against one by one | {best['together']:.2f} s | {best['one by one']:.2f} s "
            f"| {best['one by one'] / best['together']:.1f}x faster |",
            f"| {size}: a sweep of {len(SWEEP)} settings, against one | {best['sweep']:.2f} s | {best['together']:.2f} s "
            f"| takes {best['sweep'] / best['together']:.1f} times as long |",
        ]
    record(["BLA-T", "together", "alone", "ratio"], rows, device)


def scaling(device: torch.device) -> None:
    """Seconds of an epoch of BLA-T as a function of each size; all other sizes as in `base`."""
    base, rows = {"images": 1024, "cells": 49, "channels": 512, "classes": 20, "runs": 4}, []
    for name in base:
        sizes, times = [base[name] * factor for factor in (1, 2, 4, 8)], []
        for size in sizes:
            own = base | {name: size}
            data = [t.to(device) for t in features_of(own["images"], own["cells"], own["channels"], own["classes"])]
            seeds = list(range(own["runs"]))
            head = initial_head(seeds, own["channels"], own["classes"])
            times.append(
                min(seconds(lambda d=data, h=head, s=seeds: train(*d, BLA_T, h, s, SCHEDULE), device) for _ in range(3))
            )
        exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        rows.append(
            f"| {name} | {', '.join(f'{s:,}: {t:.2f} s' for s, t in zip(sizes, times, strict=True))} | {exponent:.2f} |"
        )
    others = ", ".join(f"{size:,} {name}" for name, size in base.items())
    record([f"an epoch of BLA-T ({others})", "seconds", "grows with the power"], rows, device)


class Peak:
    """Peak memory in the block beyond the memory in use before it, in bytes: `peak.used`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.done, self.used = device, threading.Event(), 0

    def __enter__(self) -> "Peak":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.process = psutil.Process()
            self.before = self.process.memory_info().rss
            self.watcher = threading.Thread(target=self._watch)
            self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.used = max(self.used, self.process.memory_info().rss - self.before)

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.used = torch.cuda.max_memory_allocated() - self.before
        else:
            self.done.set()
            self.watcher.join()


def paper_sizes(runs: int, device: torch.device) -> None:
    """Table 1 at the paper's sizes: seconds and memory of each dataset, and of all 300 trainings."""
    rows, total = [], 0.0
    for name, (images, classes, epochs) in PAPER.items():
        features, labels = (t.to(device) for t in features_of(images, classes=classes))
        with Peak(device) as peak:
            found = columns(features, labels, classes, replace(SCHEDULE, epochs=epochs), runs, device)
        total += sum(found.values())
        each = ", ".join(f"{column} {time / runs:.2f}" for column, time in found.items())
        rows.append(
            f"| {name}: {images:,} x 49 x 1,280, {classes} classes, {epochs} epochs | {each} "
            f"| {20 / runs * sum(found.values()):.1f} s | {features.nbytes / 1e9:.2f} GB + {peak.used / 1e9:.2f} GB |"
        )
        del features
    rows.append(f"| all {300 if runs == 20 else f'300 trainings, from {15 * runs}'} | | {20 / runs * total:.1f} s | |")
    columns_of_table = [
        f"Table 1, random features, {runs} runs timed",
        "seconds a run",
        "20 runs of 5 columns",
        "features + peak",
    ]
    record(columns_of_table, rows, device)
    print(f"peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of training on cached features.")
    parser.add_argument("--paper", action="store_true", help="random features of the paper's sizes")
    parser.add_argument("--dataset", help="only compare with the backbone in the loop, on this dataset")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60, help="timed steps of the backbone in the loop")
    arguments = parser.parse_args()
    device = choose_device()
    keep_freed_memory()
    if arguments.paper:
        paper_sizes(arguments.runs, device)
        return
    against_the_loop(arguments.dataset or "painted_birds", arguments.runs, arguments.steps, device)
    if not arguments.dataset:
        together(device)
        scaling(device)


if __name__ == "__main__":
    main()
