"""Grad-CAM: the feature map weighted by the mean gradient of the class's logit.

Selvaraju et al. 2017. With A the map `[C, h, w]` and y the logit: w_k = mean over cells of dy/dA_k, and the map is
relu(sum_k w_k A_k). After average pooling it is the positive part of CAM, divided by the number of cells.
"""

from torch import Tensor

from bla.explainers.interface import Card, Explainer


class GradCAM(Explainer):
    """Grad-CAM at the feature map."""

    title = "Grad-CAM"
    card = Card(
        sentence="The channels of the feature map, weighted by how much each raises the logit of the class.",
        source="Selvaraju et al. 2017",
        needs="features and gradients",
        cost="1 forward and 1 backward pass",
        proof="tests/explainers/test_posthoc.py: captum",
    )

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, none negative."""
        features, gradient = self.classifier.feature_gradient(images, targets)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        return (weights * features).sum(dim=1).relu()
