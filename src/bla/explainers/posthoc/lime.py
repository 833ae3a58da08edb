"""LIME on the grid of the feature map: which patches of the image does the classifier's output depend on?

Ribeiro et al. 2016, "Why should I trust you?", as Baumhauer et al. 2021 use it in section 4.3: the patches of the image
that lie over the cells are the interpretable features, absent patches are black, and a linear model of which patches are
shown is fitted by least squares to the classifier's output under random patterns. Its coefficients are the map.
"""

from typing import Literal

import torch
from torch import Tensor

from bla.explainers.interface import Explainer
from bla.explainers.occlusion import occluded_logits, patch_masks, target_scores
from bla.networks.classifier import Classifier


class LIME(Explainer):
    """`patterns` random patterns an image, in which each patch is shown with probability `presence`.

    Images with equal seeds share their patterns, and with them one pseudo-inverse.
    """

    title = "LIME"
    slow = True

    def __init__(
        self,
        classifier: Classifier,
        patterns: int = 1000,
        presence: float = 0.5,
        output: Literal["probability", "logit"] = "probability",
    ) -> None:
        self.classifier, self.patterns, self.presence = classifier, patterns, presence
        self.probabilities = output == "probability"

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Coefficients `[B, h, w]` of the linear models."""
        assert len(self.classifier.head_weight) == 1, "several runs are explained by explain_runs"
        return self.explain_runs(images, targets[None], seeds)[0]

    def explain_runs(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[R, B, h, w]` of a classifier of R runs for targets `[R, B]`: one pass over the images serves all runs."""
        grid = self.grid(images)
        drawn = {
            int(seed): draw_patterns(self.patterns, grid * grid, self.presence, int(seed))
            for seed in set(seeds.tolist())
        }
        solvers = {seed: solver(patterns).to(targets.device) for seed, patterns in drawn.items()}
        shared = len(drawn) == 1
        patterns = drawn[int(seeds[0])] if shared else torch.stack([drawn[int(seed)] for seed in seeds])
        masks = patch_masks(patterns.to(self.classifier.head_weight.device), tuple(images.shape[1:3]), grid)  # type: ignore[arg-type]
        scores = [
            target_scores(logits, targets[:, number], self.probabilities).double()
            for number, logits in enumerate(occluded_logits(self.classifier, images, masks, self.patterns))
        ]
        if shared:
            maps = torch.stack(scores, dim=1) @ solvers[int(seeds[0])].T
        else:
            maps = torch.stack([s @ solvers[int(seed)].T for s, seed in zip(scores, seeds, strict=True)], dim=1)
        return maps.view(*targets.shape, grid, grid)


def draw_patterns(count: int, cells: int, presence: float, seed: int) -> Tensor:
    """Random patterns, bool `[count, cells]`; each patch is shown with probability `presence`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, cells, generator=generator) < presence


def solver(patterns: Tensor) -> Tensor:
    """What turns scores `[.., P]` into coefficients, `scores @ solver.T`: `[cells, P]`, double precision.

    The coefficients of the least-squares linear model with an intercept; patterns that do not determine them give those
    of the smallest norm.
    """
    design = patterns.double()
    result: Tensor = torch.linalg.pinv(design - design.mean(dim=0))
    return result
