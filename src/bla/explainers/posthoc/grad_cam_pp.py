"""Grad-CAM++: Grad-CAM with a weight for each cell's gradient.

Chattopadhay et al. 2018. With g = dy/dA_k: alpha = g^2 / (2 g^2 + S_k g^3), where S_k is the sum of A_k over the cells
and alpha is 0 where g is 0; w_k = sum over cells of alpha relu(g); the map is relu(sum_k w_k A_k). The derivation's
factor exp(y) is omitted, since it is the same for all cells. Published code has two versions of S_k g^3 (the sum of A_k
g^3 over the cells, or the sum of A_k times g^3); after average pooling g is the same for all cells, and they are equal.
"""

import torch
from torch import Tensor

from bla.explainers.interface import Card, Explainer


class GradCAMPP(Explainer):
    """Grad-CAM++ at the feature map."""

    title = "Grad-CAM++"
    card = Card(
        sentence="Grad-CAM whose cells weigh differently, so that small and repeated objects count.",
        source="Chattopadhay et al. 2018",
        needs="features and gradients",
        cost="1 forward and 1 backward pass",
        proof="tests/explainers/test_posthoc.py: its formula, computed by hand",
    )

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, none negative."""
        features, gradient = self.classifier.feature_gradient(images, targets)
        total = features.sum(dim=(2, 3), keepdim=True)
        below = 2 * gradient**2 + total * gradient**3
        alpha = torch.where((gradient == 0) | (below == 0), 0, gradient**2 / below)
        weights = (alpha * gradient.relu()).sum(dim=(2, 3), keepdim=True)
        return (weights * features).sum(dim=1).relu()
