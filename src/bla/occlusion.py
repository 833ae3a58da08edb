"""Masked images through the classifier, in batches that mix images and masks.

    scores = occluded_scores(classifier, images, patterns, targets)   # [R, N, P]

An image is cut into a grid of patches; a pattern says which of them are shown, the others are black. Masks are built on
the device, and a batch takes (image, pattern) pairs in a fixed order, so that results do not depend on its size.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from bla.backbones import batch_size_for
from bla.classifier import Classifier
from bla.patches import occlude


@torch.no_grad()
def occluded_scores(
    classifier: Classifier,
    images: Tensor,
    patterns: Tensor,
    targets: Tensor,
    grid: int,
    probabilities: bool = True,
    batch_size: int | None = None,
) -> Iterator[Tensor]:
    """Score of the target class of each image under each pattern: for one image after the other `[R, P]`.

    `images` uint8 `[N, H, W, 3]`; `patterns` bool `[P, grid * grid]` for all images, or `[N, P, grid * grid]`; `targets`
    `[R, N]`, the class that is explained to each run. Scores are softmax probabilities, or logits. `batch_size` is halved
    when the device's memory does not suffice; it changes results by rounding alone.
    """
    device = next(classifier.parameters()).device
    size = batch_size or batch_size_for(device, images.shape[1])
    patterns = patterns.expand(len(images), -1, -1) if patterns.ndim == 2 else patterns
    count = patterns.shape[1]
    done: list[Tensor] = []
    start = 0
    while start < len(images) * count:
        pairs = torch.arange(start, min(start + size, len(images) * count))
        image, pattern = pairs // count, pairs % count
        try:
            masked = occlude(images[image].to(device), patterns[image, pattern].to(device), grid)
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                features = classifier.features(masked)
            scores = classifier.logits(features)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        scores = scores.softmax(dim=2) if probabilities else scores
        wanted = targets.to(device)[:, image][..., None]
        done.append(scores.gather(2, wanted)[..., 0].cpu())
        start += len(pairs)
        while sum(part.shape[1] for part in done) >= count:  # an image is complete
            whole = torch.cat(done, dim=1)
            yield whole[:, :count]
            done = [whole[:, count:]]
