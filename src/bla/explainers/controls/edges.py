"""The strength of the image's edges. A control: it sees the image but not the classifier (Adebayo et al. 2018)."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from bla.explainers.interface import Card, Explainer

SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


class Edges(Explainer):
    """Sobel's gradient magnitude of the grey image."""

    title = "edges"
    card = Card(
        sentence="The strength of the edges of the grey image.",
        source="Adebayo et al. 2018",
        needs="the image",
        cost="no forward pass",
        proof="tests/explainers/test_controls.py: scipy",
    )
    control = True
    class_specific = False

    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Magnitudes `[B, H, W]`, in grey levels per two pixels."""
        grey = images.float().mean(dim=3)[:, None]
        kernels = torch.stack([SOBEL, SOBEL.T])[:, None].to(images.device) / 4
        strength: Tensor = conv2d(pad(grey, (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1)
        return strength
