"""Class scores of partly hidden images, in batches that mix images and masks.

    masks = patch_masks(patterns, images.shape[1:3], grid=7)          # bool [P, 49] for all images, or [N, P, 49]
    for logits in occluded_logits(classifier, images, masks, len(patterns)):
        ...                                                           # one image after the other: [R, P, K]

A mask is the share of each pixel that is shown; the rest is background: black, a colour, or another image. Masks are
built on the device. Batches take (image, mask) pairs in a fixed order, so that results do not depend on the batch size.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bla.networks.classifier import Classifier, require_finite
from bla.networks.patches import Grid, batch_size_for, cells_of_pixels

Masks = Callable[[Tensor, Tensor], Tensor]
"""From image numbers `[B]` and mask numbers `[B]` to masks `[B, H, W]` in [0, 1], on the classifier's device."""


def patch_masks(patterns: Tensor, size: Sequence[int], grid: Grid) -> Masks:
    """Masks of whole patches: `patterns` bool `[P, n]` for all images, or `[N, P, n]`, true is shown; `size` is (H, W)."""
    cells = cells_of_pixels(size, grid).to(patterns.device)

    def masks(image: Tensor, number: Tensor) -> Tensor:
        shown = patterns[number] if patterns.ndim == 2 else patterns[image, number]
        return shown[:, cells]

    return masks


def smooth_masks(maps: Tensor, size: Sequence[int], align_corners: bool = False) -> Masks:
    """Maps `[N, P, h, w]` in [0, 1], upsampled bilinearly to the size of the image."""
    return lambda image, number: interpolate(
        maps[image, number][:, None], list(size), mode="bilinear", align_corners=align_corners
    )[:, 0]


def blurred(images: Tensor) -> Tensor:
    """The images `[N, H, W, 3]` blurred beyond recognition, float in [0, 255].

    For sides of 224 pixels a Gaussian with sigma 50 pixels in a window of 51; in proportion for other sides (the background
    of Qi et al. 2020, I-GOS).
    """
    from torchvision.transforms.functional import gaussian_blur  # type: ignore[import-untyped]  # takes a second to import

    height, width = images.shape[1:3]
    kernels = [2 * round(51 * side / 224 / 2 - 0.5) + 1 for side in (width, height)]
    pixels = images.permute(0, 3, 1, 2).float()
    result: Tensor = gaussian_blur(pixels, kernels, [50 * side / 224 for side in (width, height)])
    return result.permute(0, 2, 3, 1)


@torch.no_grad()
def occluded_logits(
    classifier: Classifier,
    images: Tensor,
    masks: Masks,
    count: int,
    background: Tensor | None = None,
    batch_size: int | None = None,
) -> Iterator[Tensor]:
    """Yield the logits `[R, count, K]` of each image under `count` masks, on the classifier's device.

    `images` uint8 `[N, H, W, 3]`; `background` is None for black, a colour `[3]`, or images `[N, H, W, 3]`, in [0,
    255]. `batch_size` is halved when the device runs out of memory; it affects results only by rounding.
    Raises BlaError before it yields a class score that is not finite.
    """
    device = classifier.device
    images, size = images.to(device), batch_size or batch_size_for(device, images.shape[1:3])
    background = None if background is None else background.to(device)
    start = filled = 0
    image_logits: Tensor | None = None
    finite = torch.ones((), dtype=torch.bool, device=device)
    while start < len(images) * count:
        pairs = torch.arange(start, min(start + size, len(images) * count), device=device)
        image, number = pairs // count, pairs % count
        try:
            shown = masks(image, number)[..., None]
            pixels = images[image] * shown
            if background is not None:
                behind = background if background.ndim == 1 else background[image]
                pixels = pixels + behind * (~shown if shown.dtype == torch.bool else 1 - shown)
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                features = classifier.features(pixels)
            logits = classifier.logits(features)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            continue
        start += len(pairs)
        finite &= logits.isfinite().all()
        if filled + logits.shape[1] >= count:  # at most once a batch, because a GPU waits for it
            require_finite(finite)
        if image_logits is None:
            image_logits = torch.empty(len(logits), count, logits.shape[2], device=device)
        while logits.shape[1]:  # a batch may end one image and begin others
            part = logits[:, : count - filled]
            image_logits[:, filled : filled + part.shape[1]] = part
            logits, filled = logits[:, part.shape[1] :], filled + part.shape[1]
            if filled == count:
                yield image_logits
                image_logits, filled = torch.empty_like(image_logits), 0


def target_scores(classifier: Classifier, logits: Tensor, targets: Tensor, probabilities: bool = True) -> Tensor:
    """The score `[R, P]` of each run's target class `[R]`, from logits `[R, P, K]`: its probability, or its logit."""
    scores = classifier.probabilities(logits) if probabilities else logits
    return scores.gather(2, targets.to(logits.device)[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
