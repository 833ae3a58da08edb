"""LIME on the grid of the feature map: how does the classifier's output depend on the patches of the image?

Ribeiro et al. 2016, "Why should I trust you?", as Baumhauer et al. 2021 use it in section 4.3: the patches of the image
that lie over the cells are the interpretable features, absent patches are black, and a linear model of which patches
are shown is fitted by least squares to the classifier's output under random patterns. Its coefficients are the map.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from bla.base.specs import FORBID_EXTRA, Share
from bla.explainers.interface import Card, Explainer
from bla.explainers.occlusion import occluded_logits, patch_masks, target_scores


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`patterns` random patterns per image, in which each patch is shown with probability `presence`.

    `patterns_of`: all images of a dataset share their patterns (they get equal seeds), or each image has its own.
    `output`: the class's probability or logit is explained.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    patterns: Annotated[int, Ge(ge=100), Le(le=1_000_000)] = 1000
    patterns_of: Literal["dataset", "image"] = "dataset"
    presence: Share = 0.5
    output: Literal["probability", "logit"] = "probability"


class LIME(Explainer):
    """LIME for all runs at once. Images with equal seeds share patterns and pseudo-inverse."""

    title = "LIME"
    Settings = Settings
    card = Card(
        sentence="How much each patch of the image adds to the probability of the class, by least squares.",
        source="Ribeiro et al. 2016, as in Baumhauer et al. 2021, section 4.3",
        needs="class scores alone",
        cost="1 forward pass per pattern",
        proof="tests/explainers/test_posthoc.py: numpy's least squares, and an additive classifier",
    )
    all_runs = True
    seeded = True
    slow = True

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Coefficients `[B, h, w]` of the linear models."""
        return self.explain_runs(images, targets[None], seeds)[0]

    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[R, B, h, w]` of a classifier of R runs for targets `[R, B]`: one pass over the images serves all runs."""
        assert len(targets) == self.classifier.runs, "targets are needed for each run (`explain_runs`)"
        grid, spec = self.grid(images), self.settings
        drawn = {
            int(seed): draw_patterns(spec.patterns, math.prod(grid), spec.presence, int(seed))
            for seed in set(seeds.tolist())
        }
        solvers = {seed: solver(patterns).to(targets.device) for seed, patterns in drawn.items()}
        shared = len(drawn) == 1
        patterns = drawn[int(seeds[0])] if shared else torch.stack([drawn[int(seed)] for seed in seeds])
        masks = patch_masks(patterns.to(self.classifier.device), images.shape[1:3], grid)
        scores = [
            target_scores(self.classifier, logits, targets[:, number], spec.output == "probability").double()
            for number, logits in enumerate(occluded_logits(self.classifier, images, masks, spec.patterns))
        ]
        if shared:
            maps = torch.stack(scores, dim=1) @ solvers[int(seeds[0])].T
        else:
            maps = torch.stack([s @ solvers[int(seed)].T for s, seed in zip(scores, seeds, strict=True)], dim=1)
        return maps.masked_fill(_are_equal(torch.stack(scores, dim=1))[..., None], 0).view(*targets.shape, *grid)


def _are_equal(scores: Tensor) -> Tensor:
    """Whether scores `[R, B, P]` differ only by rounding in single precision, so that nothing matters: bool `[R, B]`."""
    rounding = 4 * torch.finfo(torch.float32).eps * scores.abs().amax(dim=2)
    return scores.amax(dim=2) - scores.amin(dim=2) <= rounding


def draw_patterns(count: int, cells: int, presence: float, seed: int) -> Tensor:
    """Random patterns, bool `[count, cells]`; each patch is shown with probability `presence`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, cells, generator=generator) < presence


def solver(patterns: Tensor) -> Tensor:
    """The matrix `[cells, P]`, double precision, that turns scores `[.., P]` into coefficients: `scores @ solver.T`.

    They are those of the least-squares linear model with an intercept; if the patterns do not determine them, those of
    the smallest norm.
    """
    design = patterns.double()
    result: Tensor = torch.linalg.pinv(design - design.mean(dim=0))
    return result
