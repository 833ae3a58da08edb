"""The speed of feature extraction by batch size: unmodified, with batch normalisation folded, and in half precision.

    python benchmarks/extraction.py                                          # random weights; the speed is the same
    python benchmarks/extraction.py --weights data/raw/some.safetensors      # measures the errors of real features

The error is the relative norm of the difference to the unmodified backbone in single precision. Results are appended to
benchmarks/results.md.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from results import record

import pipeline  # noqa: F401  puts src on the path
from bla.base.specs import Backbone
from bla.networks.backbones import Extractor, build_backbone, load_backbone
from bla.networks.folding import fold_batch_norm
from pipeline.run.environment import choose_device


def rate(extractor: Extractor, images: torch.Tensor, device: torch.device, precision: torch.dtype | None) -> float:
    """Images per second: the median of ten batches, after two warm-up batches."""
    times = []
    for _ in range(12):
        started = time.perf_counter()
        forward(extractor, images, device, precision)
        times.append(time.perf_counter() - started)
    return len(images) / float(np.median(times[2:]))


def forward(
    extractor: Extractor, images: torch.Tensor, device: torch.device, precision: torch.dtype | None
) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision is not None):
        features: torch.Tensor = extractor(images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return features.float()


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second, by batch size, folding and precision.")
    parser.add_argument("--architecture", default="tf_efficientnetv2_b0")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args()
    device = choose_device()
    spec = Backbone(architecture=arguments.architecture, weights=arguments.weights or "none", normalisation="imagenet")
    side = arguments.image_size
    plain = load_backbone(spec, Path(spec.weights), side) if arguments.weights else build_backbone(spec, side).eval()
    ways = {"as it comes, float32": (plain, None), "folded, float32": (fold_batch_norm(plain), None)}
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    ways[f"folded, {str(half).removeprefix('torch.')}"] = (ways["folded, float32"][0], half)
    ways = {name: (extractor.to(device), precision) for name, (extractor, precision) in ways.items()}
    sizes = (128, 256, 512, 1024) if device.type == "cuda" else (8, 16, 32, 64)
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (max(sizes), side, side, 3), dtype=torch.uint8, generator=noise).to(device)
    reference = forward(plain, images[: sizes[0]], device, None)
    rows = []
    for name, (extractor, precision) in ways.items():
        found = forward(extractor, images[: sizes[0]], device, precision)
        error = float((found - reference).norm() / reference.norm())
        rates = [f"{rate(extractor, images[:size], device, precision):.0f}" for size in sizes]
        rows.append(f"| {arguments.architecture}, {side} px, {name} | {' | '.join(rates)} | {error:.1e} |")
    record(["images/s", *(f"batch {size}" for size in sizes), "error"], rows, device)


if __name__ == "__main__":
    main()
