"""Learned methods: images a second in training and in explaining, and training without the feature cache.

    python benchmarks/learned.py

Random images and weights, whose speed is that of real ones; one run each. Without the cache, every epoch computes the
features of its images anew, as a plain implementation does; for methods that read pixels too, the features are the
smaller part. This column is not measured: it is computed from the seconds of training and of one extraction. Results
are appended to benchmarks/results.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from results import record, seconds

import pipeline  # noqa: F401  puts src on the path
from bla.base.paper import VARIANTS
from bla.base.specs import Backbone, Schedule
from bla.explainers.interface import LearnedExplainer, TrainingData
from bla.explainers.learned.attention import Attention
from bla.explainers.registry import explainer_class
from bla.method.initialisation import initial_head
from bla.networks.backbones import build_backbone, extract
from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm
from bla.runtime.memory import keep_freed_memory
from pipeline.run.environment import choose_device

METHODS = ("l_cam_fm", "l_cam_img", "explainer_network", "xnn")
CLASSES = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Images a second of learned methods, with and without cached features."
    )
    parser.add_argument("--architecture", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, help="default 64, on a GPU 1,024")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    device, side, epochs = choose_device(), arguments.image_size, arguments.epochs
    count = arguments.images or (1024 if device.type == "cuda" else 64)
    keep_freed_memory()
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=noise)
    spec = Backbone(architecture=arguments.architecture, weights="none", normalisation="half")
    extractor = fold_batch_norm(build_backbone(spec, side).eval()).to(device)
    features = torch.cat([torch.from_numpy(part) for part in extract(extractor, images.numpy(), device)])
    caching = seconds(lambda: list(extract(extractor, images.numpy(), device)), device)
    cells = round(features.shape[1] ** 0.5)
    classifier = Classifier(extractor, initial_head(range(1), features.shape[2], CLASSES)).to(device).eval()
    schedule = Schedule(batch_size=32, epochs=epochs, learning_rate=0.001, dropout=0.2, adam_epsilon=1e-7)
    labels = torch.arange(count) % CLASSES
    data = TrainingData(features[None], (cells, cells), images.numpy(), labels, schedule, device)
    methods: dict[str, LearnedExplainer] = {"bla_t": Attention(classifier, VARIANTS["bla_t"])}
    for name in METHODS:
        kind = explainer_class(name)
        methods[name] = kind(classifier, _settings(kind, epochs, count))
    shown = images[: min(count, 32)].to(device)
    targets, seeds = torch.zeros(len(shown), dtype=torch.int64, device=device), torch.arange(len(shown))
    rows = []
    for name, method in methods.items():
        method.load(method.fit(data, [0]))  # warms up
        fitting = seconds(lambda m=method: m.fit(data, [0]), device)  # type: ignore[misc]
        explaining = min(seconds(lambda m=method: m.explain(shown, targets, seeds), device) for _ in range(3))  # type: ignore[misc]
        plain = (fitting + epochs * caching) / (fitting + caching)
        rows.append(
            f"| {name} | {epochs * count / fitting:.0f} | {plain:.2f}x as long | {len(shown) / explaining:.0f} |"
        )
    name = f"{arguments.architecture}, {side} px, {count} images, {epochs} epochs, 1 run"
    record(
        [name, "images a second in training", "without the feature cache (computed)", "explanations a second"],
        rows,
        device,
    )


def _settings(kind: type[LearnedExplainer], epochs: int, count: int) -> object:
    """The method's settings for some epochs, on all images if it uses few."""
    more = {"images": count} if hasattr(kind.Settings(), "images") else {}
    return kind.Settings(epochs=epochs, **more)


if __name__ == "__main__":
    main()
