"""What explanations cost: LIME against captum's and against the bare backbone, then every method, in forward passes.

    python benchmarks/explainers.py                                     # random weights; the speed is the same
    python benchmarks/explainers.py --weights data/raw/some.safetensors # the error is that of real scores

captum gets the same images, patches, patterns' number and classifier, as it comes in float32, with its defaults (one
perturbation a call) and with our batch size. A rate is that of the median repetition. Results are appended to
benchmarks/results.md.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import Lime
from table1_column import record
from torch import Tensor

import pipeline  # noqa: F401  puts src on the path
from bla.backbones import Extractor, batch_size_for, build_backbone, fold_batch_norm, load_backbone
from bla.classifier import Classifier
from bla.explainers import explainer_class, explainer_names
from bla.explainers.attention import Attention
from bla.explainers.lime import LIME
from bla.occlusion import occluded_logits, patch_masks
from bla.paper import VARIANTS
from bla.patches import patch_of_pixel
from bla.specs import Backbone
from bla.training import Module, initial_head
from pipeline.stage import choose_device, keep_freed_memory

REPETITIONS = 3


def seconds(work: Callable[[], object], device: torch.device, warm: bool = True) -> float:
    """The median of some repetitions, after one that warms up."""
    times = []
    for _ in range(REPETITIONS + warm):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(np.median(times[warm:]))


def bare(extractor: Extractor, images: Tensor, size: int) -> None:
    """The backbone alone, in the precision of the device."""
    for part in images.split(size):
        with torch.inference_mode(), torch.autocast(part.device.type, torch.float16, enabled=part.is_cuda):
            extractor.feature_map(part)


def captum_lime(classifier: Classifier, images: Tensor, targets: Tensor, patterns: int, at_once: int) -> None:
    """captum's LIME with a constant kernel and least squares, one image after another, as its users call it."""
    side, grid = images.shape[1], 7
    patch = patch_of_pixel(side, grid)
    cells = (patch[:, None] * grid + patch).to(images.device)[None, :, :, None].expand(1, side, side, 3)
    method = Lime(
        lambda pixels: classifier(pixels)[0].softmax(dim=1),
        interpretable_model=SkLearnLinearRegression(),
        similarity_func=lambda *_, **__: 1.0,
    )
    for image, target in zip(images.split(1), targets.tolist(), strict=True):
        with torch.no_grad():
            method.attribute(
                image.float(), target=target, feature_mask=cells, n_samples=patterns, perturbations_per_eval=at_once
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward passes a second of LIME, and the cost of every method.")
    parser.add_argument("--architecture", default="tf_efficientnetv2_b0")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, help="for LIME; default 2, on a GPU 64")
    parser.add_argument("--patterns", type=int, help="default 200, on a GPU 1,000")
    parser.add_argument("--runs", type=int, default=20, help="heads that one pass serves")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    keep_freed_memory()
    device, side = choose_device(), arguments.image_size
    gpu = device.type == "cuda"
    count, patterns = arguments.images or (64 if gpu else 2), arguments.patterns or (1000 if gpu else 200)
    spec = Backbone(arguments.architecture, arguments.weights or "none", "imagenet")
    plain = load_backbone(spec, Path(spec.weights), side) if arguments.weights else build_backbone(spec, side).eval()
    plain = plain.requires_grad_(False)
    folded = fold_batch_norm(plain)
    head = initial_head(range(arguments.runs), int(plain.model.num_features), 2)
    ours, theirs = Classifier(folded, head).to(device).eval(), Classifier(plain, head).run(0).to(device).eval()
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=noise).to(device)
    targets, size = torch.zeros(arguments.runs, count, dtype=torch.int64, device=device), batch_size_for(device, side)
    seeds = torch.zeros(count, dtype=torch.int64)

    some = images.repeat(-(-4 * size // count), 1, 1, 1)[: 4 * size]
    bare_rate = len(some) / seconds(lambda: bare(ours.extractor, some, size), device)
    plain_rate = len(some) / seconds(lambda: bare(theirs.extractor, some, size), device)
    passes = count * patterns
    lime = passes / seconds(lambda: LIME(ours, patterns).explain_runs(images, targets, seeds), device, warm=gpu)
    one = (
        passes
        / count
        / seconds(lambda: captum_lime(theirs, images[:1], targets[0, :1], patterns, 1), device, warm=False)
    )
    many = passes / seconds(lambda: captum_lime(theirs, images, targets[0], patterns, size), device, warm=False)
    shown = torch.rand(size, 49, generator=noise) < 0.5
    masks = patch_masks(shown.to(device), (side, side), 7)
    (exact,), (found,) = (list(occluded_logits(model, images[:1], masks, size)) for model in (theirs, ours.run(0)))
    error = float((exact.softmax(2) - found.softmax(2)).abs().max())
    name = f"{arguments.architecture}, {side} px, {patterns} patterns"
    rows = [
        f"| {name}, {count} images, {arguments.runs} heads: LIME | {lime:.0f} | {lime / bare_rate:.0%} of the bare backbone (folded, batch {size}: {bare_rate:.0f}), {lime / plain_rate:.2f}x of it as it comes ({plain_rate:.0f}); largest error of a probability {error:.0e} |",
        f"| captum's Lime with its defaults, 1 head | {one:.0f} | ours is {lime / one:.1f}x |",
        f"| captum's Lime, {size} perturbations a call, 1 head | {many:.0f} | ours is {lime / many:.1f}x |",
    ]
    record(["LIME", "forward passes a second", "ratio"], rows, device)

    single = ours.run(0)
    forward = len(some) / bare_rate / len(some)
    rows = []
    for method_name in [*(n for n in explainer_names() if n != "attention"), *VARIANTS]:
        if method_name in VARIANTS:
            module = Module(torch.rand(1, int(plain.model.num_features), device=device), torch.zeros(1, device=device))
            method = Attention(single, VARIANTS[method_name], module)
        else:
            options = {"lime": {"patterns": patterns}, "rise": {"masks": patterns}}.get(method_name, {})
            method = explainer_class(method_name)(single, **options)
        batch = images[:2] if method.slow else some[:size]
        chosen, own = torch.zeros(len(batch), dtype=torch.int64, device=device), torch.arange(len(batch))
        before = single.forwards
        method.explain(batch, chosen, own)
        each = (single.forwards - before) / len(batch)
        took = seconds(lambda m=method, b=batch, c=chosen, o=own: m.explain(b, c, o), device, warm=False) / len(batch)  # type: ignore[misc]
        rows.append(f"| {method_name} | {each:.0f} + {method.backwards} | {1000 * took:.3g} | {took / forward:.3g} |")
    record(
        ["method", "forward + backward passes an image", "ms an image", "in forward passes of the bare backbone"],
        rows,
        device,
    )


if __name__ == "__main__":
    main()
