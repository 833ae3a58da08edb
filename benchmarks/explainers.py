"""The cost of explanations: our LIME against captum's and the bare backbone, then every method in forward passes.

    python benchmarks/explainers.py                                     # random weights; the speed is the same
    python benchmarks/explainers.py --weights data/raw/some.safetensors # measures the error of real scores

captum gets the same images, patches, number of patterns and classifier. It uses the classifier as timm builds it (float32,
contiguous memory format), once with captum's defaults (one perturbation per call) and once with our batch size. Rates are
those of the median repetition. Results are appended to benchmarks/results.md.
"""

import argparse
import copy
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
from results import record
from torch import Tensor

import pipeline  # noqa: F401  puts src on the path
from bla.base.paper import VARIANTS
from bla.base.specs import Backbone
from bla.explainers.learned.attention import Attention
from bla.explainers.occlusion import occluded_logits, patch_masks
from bla.explainers.posthoc.lime import LIME
from bla.explainers.posthoc.lime import Settings as LimeSettings
from bla.explainers.posthoc.rise import Settings as RiseSettings
from bla.explainers.registry import explainer_class, explainer_names
from bla.method.initialisation import initial_head
from bla.method.modules import Head, Module, Trained
from bla.networks.backbones import Extractor, batch_size_for, build_backbone, load_backbone
from bla.networks.classifier import Classifier
from bla.networks.folding import fold_batch_norm
from bla.networks.patches import cells_of_pixels
from bla.runtime.memory import keep_freed_memory
from pipeline.run.environment import choose_device

REPETITIONS = 3


def seconds(work: Callable[[], object], device: torch.device, warm: bool = True) -> float:
    """The median of some repetitions, after one warm-up."""
    times = []
    for _ in range(REPETITIONS + warm):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(np.median(times[warm:]))


def bare(extractor: Extractor, images: Tensor, size: int) -> None:
    """The backbone alone, in half precision on a GPU and float32 on a CPU."""
    for part in images.split(size):
        with torch.inference_mode(), torch.autocast(part.device.type, torch.float16, enabled=part.is_cuda):
            extractor.feature_map(part)


def plainly(extractor: Extractor, head: Head) -> Callable[[Tensor], Tensor]:
    """The classifier as users of captum write it: float32, normalised pixels `[B, 3, H, W]`, contiguous memory format."""
    model = copy.deepcopy(extractor.model).to(memory_format=torch.contiguous_format)

    def probabilities(pixels: Tensor) -> Tensor:
        pooled = model.forward_features(pixels).mean(dim=(2, 3))  # type: ignore[operator]
        return (pooled @ head.weight[0].T + head.bias[0]).softmax(dim=1)

    return probabilities


def captum_lime(classifier: Callable[[Tensor], Tensor], images: Tensor, patterns: int, at_once: int) -> None:
    """captum's LIME with a constant kernel and least squares, image by image, as its users call it."""
    cells = cells_of_pixels(images.shape[2:], (7, 7)).to(images.device).expand(1, 3, -1, -1)
    method = Lime(classifier, interpretable_model=SkLearnLinearRegression(), similarity_func=lambda *_, **__: 1.0)
    for image in images.split(1):
        with torch.no_grad():
            method.attribute(image, target=0, feature_mask=cells, n_samples=patterns, perturbations_per_eval=at_once)


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward passes per second of LIME, and the cost of every method.")
    parser.add_argument("--architecture", default="tf_efficientnetv2_b0")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, help="for LIME; default 2, on a GPU 64")
    parser.add_argument("--patterns", type=int, help="default 200, on a GPU 1,000")
    parser.add_argument("--runs", type=int, default=20, help="heads evaluated in each forward pass")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    device, side = choose_device(), arguments.image_size
    gpu = device.type == "cuda"
    count, patterns = arguments.images or (64 if gpu else 2), arguments.patterns or (1000 if gpu else 200)
    spec = Backbone(architecture=arguments.architecture, weights=arguments.weights or "none", normalisation="imagenet")
    plain = load_backbone(spec, Path(spec.weights), side) if arguments.weights else build_backbone(spec, side).eval()
    plain = plain.requires_grad_(False).to(device)
    head = initial_head(range(arguments.runs), int(plain.model.num_features), 2)
    head = Head(head.weight.to(device), head.bias.to(device))
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=noise).to(device)
    targets, size = (
        torch.zeros(arguments.runs, count, dtype=torch.int64, device=device),
        batch_size_for(device, (side, side)),
    )
    seeds, passes = torch.zeros(count, dtype=torch.int64), count * patterns

    # captum comes first, before `keep_freed_memory` changes the allocator.
    theirs = plainly(plain, head)
    pixels = ((images.permute(0, 3, 1, 2).float() - plain.mean) / plain.divisor).contiguous()
    some = pixels.repeat(-(-4 * size // count), 1, 1, 1)[: 4 * size]
    with torch.no_grad():
        plain_rate = len(some) / seconds(lambda: [theirs(part) for part in some.split(size)], device)
    one = patterns / seconds(lambda: captum_lime(theirs, pixels[:1], patterns, 1), device, warm=False)
    many = passes / seconds(lambda: captum_lime(theirs, pixels, patterns, size), device, warm=False)

    keep_freed_memory()
    ours, exactly = Classifier(fold_batch_norm(plain), head).to(device).eval(), Classifier(plain, head).eval()
    some = images.repeat(-(-4 * size // count), 1, 1, 1)[: 4 * size]
    bare_rate = len(some) / seconds(lambda: bare(ours.extractor, some, size), device)
    method = LIME(ours, LimeSettings(patterns=patterns))
    lime = passes / seconds(lambda: method.explain_runs(images, targets, seeds), device, warm=gpu)
    shown = torch.rand(size, 49, generator=noise) < 0.5
    masks = patch_masks(shown.to(device), (side, side), (7, 7))
    (exact,), (found,) = (
        list(occluded_logits(model, images[:1], masks, size)) for model in (exactly.run(0), ours.run(0))
    )
    error = float((exact.softmax(2) - found.softmax(2)).abs().max())
    name = f"{arguments.architecture}, {side} px, {patterns} patterns"
    rows = [
        f"| {name}, {count} images, {arguments.runs} heads: LIME | {lime:.0f} | {lime / bare_rate:.0%} of the bare backbone (channels last, batch norm folded, batch {size}: {bare_rate:.0f}); largest error of a probability {error:.0e} |",
        f"| captum's Lime with its defaults, 1 head | {one:.0f} | ours is {lime / one:.1f}x |",
        f"| captum's Lime, {size} perturbations a call, 1 head | {many:.0f} | ours is {lime / many:.1f}x |",
        f"| the bare backbone as it comes, batch {size} | {plain_rate:.0f} | ours is {lime / plain_rate:.1f}x |",
    ]
    record(["LIME", "forward passes a second", "ratio"], rows, device)

    single = ours.run(0)
    forward = len(some) / bare_rate / len(some)
    rows = []
    settings = {"lime": LimeSettings(patterns=patterns), "rise": RiseSettings(masks=patterns)}
    module = Module(torch.rand(1, int(plain.model.num_features)), torch.zeros(1))
    state = Trained(single.linear_head(), module, torch.zeros(1, 1)).state()
    for method_name in [*(n for n in explainer_names() if not explainer_class(n).learned), *VARIANTS]:
        if method_name in VARIANTS:
            method = Attention(single, VARIANTS[method_name]).load(state)
        else:
            method = explainer_class(method_name)(single, settings.get(method_name))
        batch = images[:2] if method.slow else some[:size]
        chosen, own = torch.zeros(len(batch), dtype=torch.int64, device=device), torch.arange(len(batch))
        before = single.forwards, single.backwards
        method.explain(batch, chosen, own)
        forwards, backwards = single.forwards - before[0], single.backwards - before[1]
        took = seconds(lambda m=method, b=batch, c=chosen, o=own: m.explain(b, c, o), device, warm=False) / len(batch)  # type: ignore[misc]
        rows.append(
            f"| {method_name} | {forwards / len(batch):.0f} + {backwards / len(batch):.0f} | {1000 * took:.3g} | {took / forward:.3g} |"
        )
    record(
        ["method", "forward + backward passes an image", "ms an image", "in forward passes of the bare backbone"],
        rows,
        device,
    )


if __name__ == "__main__":
    main()
