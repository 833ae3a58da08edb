"""Shared by I-GOS and iGOS++: masks that are optimised with integrated gradients and a line search for each image.

A mask M of s x s values in [0, 1], enlarged bilinearly with aligned corners, blends the image x with a background b into
x M + b (1 - M). It starts at 1 and becomes low where the class is seen. With f the class's probability, S points and
Gaussian noise e, a path that deletes has the score

    D(M) = 1/S sum_{p=1..S} f(b + p/S M (x - b) + e),

and a path that inserts, I(M), has x and b exchanged. A method minimises a sum of D and -I of its masks, an area
mean(1 - M) and a total variation of their product. The gradient of D is an integrated gradient, which a single point,
where f may be flat, does not mislead. Each step is the longest of first_step * 0.2^n that lowers the objective L by
1e-4 * step * |gradient|^2, without the gradient of values that stay at 0 or 1. An image for which no step of at least
1e-5 does is finished and leaves the batch.

Source: Qi, Khorram and Li 2020 (I-GOS); Khorram, Lawson and Li 2021 (iGOS++).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor
from torch.nn.functional import interpolate

from bla.base.specs import FORBID_EXTRA, Count
from bla.explainers.occlusion import blurred
from bla.networks.classifier import Classifier, require_finite
from bla.networks.patches import batch_size_for
from bla.runtime.seeds import derive_seed

SUFFICIENT, SHRINK, SMALLEST_STEP = 1e-4, 0.2, 1e-5
"""Of the line search (authors' code)."""
EDGE_SCALE = 0.01
"""Squared difference of neighbours, in the network's normalised input, by which an edge's weight falls to 1/e (authors' code)."""
IMAGES_AT_ONCE = 16
"""Images whose noise is in memory together."""
Weight = Annotated[float, Ge(ge=0), Lt(lt=1e6)]


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """Constants of the authors' code as it runs; `noise` is for normalised images, `background` is where the mask is 0.

    Masks have `size` x `size` values. It explains `images` of the test images that are explained.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    size: Annotated[int, Ge(ge=2), Le(le=1024)] = 28
    area: Weight = 1
    variation: Weight = 20
    iterations: Annotated[int, Ge(ge=1), Le(le=1000)] = 20
    points: Annotated[int, Ge(ge=1), Le(le=1000)] = 15
    first_step: Annotated[float, Gt(gt=0), Lt(lt=1e6)] = 1000
    noise: Weight = 0.2
    background: Literal["blur", "black", "mean"] = "blur"
    images: Count = 4


class Path(NamedTuple):
    """A path's score in the objective: whether it inserts or deletes, which masks are multiplied, and its weight."""

    inserts: bool
    masks: tuple[int, ...]
    weight: float


Variation = Callable[[Tensor, Tensor], Tensor]
"""From masks `[B, s, s]` and normalised images `[B, H, W, 3]` to their total variation `[B]`."""


def enlarged(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks `[B, k, s, s]` at the size of the image, `[B, k, H, W]`."""
    large: Tensor = interpolate(masks, list(size), mode="bilinear", align_corners=True)
    return large


def total_variation(masks: Tensor, images: Tensor) -> Tensor:
    """The mean squared difference `[B]` of vertical and of horizontal neighbours in masks `[B, s, s]`, added."""
    return masks.diff(dim=1).square().mean(dim=(1, 2)) + masks.diff(dim=2).square().mean(dim=(1, 2))


def bilateral_variation(masks: Tensor, images: Tensor) -> Tensor:
    """Half the total variation of masks `[B, s, s]`, and half that of the enlarged masks, where edges of the image count less.

    A difference's weight is exp(-(difference of the normalised pixels)^2 / 0.01), averaged over the channels.
    """
    large = enlarged(masks[:, None], images.shape[1:3])[:, 0]
    total = total_variation(masks, images)
    for axis in (1, 2):
        weight = (images.diff(dim=axis).square() / -EDGE_SCALE).exp().mean(dim=3)
        total = total + (weight * large.diff(dim=axis).square()).mean(dim=(1, 2))
    return total / 2


class Objective:
    """L for some images, in double precision but for the classifier's scores; BlaError if these are not finite."""

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        targets: Tensor,
        seeds: Tensor,
        settings: MaskSettings,
        paths: Sequence[Path],
        variation: Variation,
    ) -> None:
        self.classifier, self.targets, self.seeds = classifier, targets, seeds.tolist()
        self.settings, self.paths, self.variation = settings, paths, variation
        extractor: Any = classifier.extractor
        mean: Tensor = extractor.mean.flatten()
        self.divisor: Tensor = extractor.divisor.flatten()
        self.images = images.float()
        colour = mean if settings.background == "mean" else torch.zeros_like(mean)
        self.behind = blurred(images) if settings.background == "blur" else colour.expand_as(self.images)
        self.normalised = (self.images - mean) / self.divisor
        signs = [-path.weight if path.inserts else path.weight for path in paths]
        self.signs = torch.tensor(signs, dtype=torch.float64, device=images.device)
        self.inserts = torch.tensor([path.inserts for path in paths], device=images.device)

    def noise(self, rows: Tensor, iteration: int) -> Tensor:
        """The noise `[A, S, H, W, 3]` of the points of every path in one iteration, for pixels in [0, 255], of the images `rows` `[A]`."""
        shape = (self.settings.points, *self.images.shape[1:])
        seeds = [derive_seed(self.seeds[row], "noise", iteration) for row in rows.tolist()]
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(self.divisor.device) * (self.settings.noise * self.divisor)

    @torch.no_grad()
    def value(self, masks: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
        """L `[A]` of masks `[A, k, s, s]` of the images `rows` `[A]`."""
        blends, scores, finite = self._blends(masks), [], []
        for passes in self._batches(len(rows)):
            pixels, _ = self._pixels(blends, rows, noise, passes)
            logits = self.classifier(pixels)[0]
            finite.append(logits.isfinite().all())
            probabilities = self.classifier.probabilities(logits)
            scores.append(probabilities.gather(1, self._targets(rows, passes)[:, None])[:, 0])
        require_finite(torch.stack(finite).all())
        return self._score(torch.cat(scores)) + self._penalty(masks, rows)

    def value_and_gradient(self, masks: Tensor, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """L `[A]` and its gradient `[A, k, s, s]`."""
        with torch.enable_grad():
            leaf = masks.detach().requires_grad_()
            blends, penalty = self._blends(leaf), self._penalty(leaf, rows)
        scores, slopes = [], []
        for passes in self._batches(len(rows)):
            pixels, change = self._pixels(blends.detach(), rows, noise, passes)
            probabilities, gradient = self.classifier.pixel_gradient(pixels, self._targets(rows, passes))
            scores.append(probabilities)
            slopes.append((gradient * change).sum(dim=3))
        of_blends = torch.cat(slopes).unflatten(0, (len(rows), len(self.paths), -1)).double().mean(dim=2)
        of_blends *= self.signs[:, None, None]
        (gradient,) = torch.autograd.grad([blends, penalty], leaf, [of_blends, torch.ones_like(penalty)])
        require_finite(gradient.isfinite().all())
        return self._score(torch.cat(scores)) + penalty.detach(), gradient

    def lowest(self, masks: Tensor, rows: Tensor) -> Tensor:
        """A bound `[A]` below L for any classifier: deletions have the probability 0, and insertions 1."""
        return self._penalty(masks, rows) + self.signs.clamp(max=0).sum()

    def _blends(self, masks: Tensor) -> Tensor:
        """The enlarged mask of every path, `[A, T, H, W]`."""
        large = enlarged(masks, self.images.shape[1:3])
        return torch.stack([large[:, list(path.masks)].prod(dim=1) for path in self.paths], dim=1)

    def _penalty(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Area and total variation of the product of the masks `[A, k, s, s]`, weighted, `[A]`."""
        mask = masks.prod(dim=1)
        area = (1 - mask).mean(dim=(1, 2))
        return self.settings.area * area + self.settings.variation * self.variation(mask, self.normalised[rows])

    def _score(self, probabilities: Tensor) -> Tensor:
        """The part of L `[A]` that depends on the classifier, from the probabilities of all passes."""
        means = probabilities.double().view(-1, len(self.paths), self.settings.points).mean(dim=2)
        return (means * self.signs).sum(dim=1)

    def _batches(self, images: int) -> Iterator[Tensor]:
        """The numbers of the passes of some images, in batches; pass number = (image * T + path) * S + point.

        On a CPU a batch has passes of one image, so that rounding does not depend on the other images.
        """
        device, each = self.images.device, len(self.paths) * self.settings.points
        passes, size = torch.arange(images * each, device=device), batch_size_for(device, self.images.shape[1:3])
        for together in passes.split(each) if device.type == "cpu" else [passes]:
            yield from together.split(size)

    def _pixels(self, blends: Tensor, rows: Tensor, noise: Tensor, passes: Tensor) -> tuple[Tensor, Tensor]:
        """The images `[B, H, W, 3]` of some passes, and their derivative with respect to the enlarged masks."""
        points = self.settings.points
        image, path, point = passes // points // len(self.paths), passes // points % len(self.paths), passes % points
        inserts, row = self.inserts[path][:, None, None, None], rows[image]
        picture, behind = self.images[row], self.behind[row]
        start = torch.where(inserts, picture, behind)
        change = (picture + behind - 2 * start) * ((point + 1) / points)[:, None, None, None]
        return start + change * blends[image, path].float()[..., None] + noise[image, point], change

    def _targets(self, rows: Tensor, passes: Tensor) -> Tensor:
        return self.targets[rows[passes // self.settings.points // len(self.paths)]]


def optimise(objective: Objective, masks: int) -> Tensor:
    """The optimised masks `[B, k, s, s]`, k = `masks`, of the objective's images."""
    settings, count = objective.settings, len(objective.images)
    shape = (count, masks, settings.size, settings.size)
    result = torch.ones(shape, dtype=torch.float64, device=objective.images.device)
    active = torch.arange(count, device=result.device)
    for iteration in range(settings.iterations):
        if not len(active):
            break
        noise = objective.noise(active, iteration)
        result[active], moved = line_search(objective, result[active], active, noise)
        active = active[moved]
    return result


def line_search(objective: Objective, masks: Tensor, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The masks `[A, k, s, s]` after one step of each image, and which images found one, bool `[A]`.

    The noise is the same for all steps, so that they are compared by their masks alone.
    """
    value, gradient = objective.value_and_gradient(masks, rows, noise)
    # A value that a step would only push out of [0, 1] cannot lower L, so its slope is not asked for.
    held = ((masks == 0) & (gradient > 0)) | ((masks == 1) & (gradient < 0))
    decrease = SUFFICIENT * gradient.masked_fill(held, 0).square().sum(dim=(1, 2, 3))
    searching, step = decrease.nonzero()[:, 0], objective.settings.first_step
    result, moved = masks.clone(), torch.zeros_like(rows, dtype=torch.bool)
    while len(searching) and step >= SMALLEST_STEP:
        tried = (masks[searching] - step * gradient[searching]).clamp(0, 1)
        limits = value[searching] - step * decrease[searching]
        # Long steps mostly raise the total variation by more than any score could make up for.
        lower = objective.lowest(tried, rows[searching]) <= limits
        if lower.any():
            values = objective.value(tried[lower], rows[searching[lower]], noise[searching[lower]])
            lower[lower.clone()] = values <= limits[lower]
        result[searching[lower]] = tried[lower]
        moved[searching[lower]] = True
        searching, step = searching[~lower], step * SHRINK
    return result, moved
