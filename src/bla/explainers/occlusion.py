"""Class scores of partly hidden images, in batches that mix images and masks.

    masks = patch_masks(patterns, images.shape[1:3], grid=7)          # bool [P, 49] for all images, or [N, P, 49]
    for logits in occluded_logits(classifier, images, masks, len(patterns)):
        ...                                                           # one image after the other: [R, P, K]

A mask is the share of each pixel that is shown; the rest is background: black, a colour, or another image. Masks are
built on the device. Batches take (image, mask) pairs in a fixed order, so that results do not depend on the batch size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bla.networks.classifier import Classifier, feature_map, require_finite
from bla.networks.patches import Grid, batch_size_for, cells_of_pixels
from bla.networks.patchwork import Patchwork, patchwork
from bla.runtime.threads import in_parts

Masks = Callable[[Tensor, Tensor], Tensor]
"""From image numbers `[B]` and mask numbers `[B]` to masks `[B, H, W]` in [0, 1], on the classifier's device."""
MANY = 100
"""Masks of patches per image from which on piecing their maps together is worth its start (`bla.networks.patchwork`)."""


@dataclass(frozen=True)
class PatchMasks:
    """Masks of whole patches, bool; `cells` `[H, W]` are the numbers of the pixels' patches."""

    patterns: Tensor
    cells: Tensor
    grid: Grid

    def __call__(self, image: Tensor, number: Tensor) -> Tensor:
        """Masks `[B, H, W]`."""
        return self.of(image, number)[:, self.cells]

    def of(self, image: Tensor, number: Tensor) -> Tensor:
        """The patterns `[B, n]` of these images and masks."""
        return self.patterns[number] if self.patterns.ndim == 2 else self.patterns[image, number]


def patch_masks(patterns: Tensor, size: Sequence[int], grid: Grid) -> PatchMasks:
    """Masks of whole patches: `patterns` bool `[P, n]` for all images, or `[N, P, n]`, true is shown; `size` is (H, W)."""
    return PatchMasks(patterns, cells_of_pixels(size, grid).to(patterns.device), grid)


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
    255]. `batch_size` is halved when the device runs out of memory; it affects results only by rounding. For many masks of
    patches the first layers' maps are pieced together, which is faster, if the network allows it.
    Raises BlaError before it yields a class score that is not finite.
    """
    device = classifier.device
    images, size = images.to(device), batch_size or batch_size_for(device, images.shape[1:3])
    if background is not None:
        background = background.to(device).float()
        if background.ndim == 1:  # a picture, because three numbers at a time are slow
            background = background.expand(images.shape[1:]).contiguous()
    pieced = _in_pieces(classifier, images, masks, background) if count >= MANY else None

    def masked(pairs: Tensor) -> Tensor:
        image, number = pairs.unbind(dim=1)
        pixels = _visible(images, image, masks(image, number), background)
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            return feature_map(classifier.extractor, pixels)

    start = filled = 0
    image_logits: Tensor | None = None
    finite = torch.ones((), dtype=torch.bool, device=device)
    while start < len(images) * count:
        pairs = torch.arange(start, min(start + size, len(images) * count), device=device)
        image, number = pairs // count, pairs % count
        try:
            if pieced:
                features = pieced.features(image, number)
            else:
                features = classifier.features_by(masked, torch.stack([image, number], dim=1))
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


def _visible(images: Tensor, numbers: Tensor, shown: Tensor, background: Tensor | None) -> Tensor:
    """Pixels `[B, H, W, 3]` of the images with these numbers `[B]`, under masks `[B, H, W]`; the background is `[H, W, 3]` or `[N, H, W, 3]`."""
    shown = shown[..., None]
    if background is None:
        return images[numbers] * shown
    behind = background if background.ndim == 3 else background[numbers]
    return images[numbers].float().sub_(behind).mul_(shown).add_(behind)


class _PiecedFeatures:
    """Feature maps of images under patterns of patches, by `Patchwork`; the maps of pictures are kept for one batch's images."""

    def __init__(
        self, classifier: Classifier, pieces: Patchwork, images: Tensor, masks: PatchMasks, background: Tensor | None
    ) -> None:
        self.classifier, self.pieces, self.images = classifier, pieces, images
        self.masks, self.background = masks, background
        self.maps: dict[int, Tensor] = {}

    def features(self, image: Tensor, number: Tensor) -> Tensor:
        """The feature maps `[B, C, h, w]` of pairs of image and mask, sorted by image."""
        self.maps = {one: self.maps[one] if one in self.maps else self._first(one) for one in image.unique().tolist()}
        return self.classifier.features_by(self._rest, torch.stack([image, number], dim=1))

    def _first(self, image: int) -> Tensor:
        shown = self.pieces.shown
        numbers = torch.full((len(shown),), image)
        return in_parts(self.pieces.first, _visible(self.images, numbers, shown, self.background))

    def _rest(self, pairs: Tensor) -> Tensor:
        images, counts = pairs[:, 0].unique_consecutive(return_counts=True)
        parts = zip(images.tolist(), pairs.split(counts.tolist()), strict=True)
        return torch.cat([self.pieces.rest(self.maps[one], self.masks.of(*part.unbind(dim=1))) for one, part in parts])


def _in_pieces(
    classifier: Classifier, images: Tensor, masks: Masks, background: Tensor | None
) -> _PiecedFeatures | None:
    """The features pieced together, where masks are of patches and the network allows it."""
    if not isinstance(masks, PatchMasks):
        return None
    pieces = patchwork(classifier.extractor, images.shape[1:3], masks.grid)
    return _PiecedFeatures(classifier, pieces, images, masks, background) if pieces else None


def target_scores(classifier: Classifier, logits: Tensor, targets: Tensor, probabilities: bool = True) -> Tensor:
    """The score `[R, P]` of each run's target class `[R]`, from logits `[R, P, K]`: its probability, or its logit."""
    scores = classifier.probabilities(logits) if probabilities else logits
    return scores.gather(2, targets.to(logits.device)[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
