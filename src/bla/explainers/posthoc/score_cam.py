"""Score-CAM: the feature map, each channel weighted by the class's probability when it masks the image.

Wang et al. 2020, as in its authors' code: channel k, scaled to [0, 1] and upsampled, masks the image (hidden pixels get
the mean colour); its weight s_k is the class's probability, without baseline or softmax over channels; constant
channels are skipped; the map is relu(sum_k s_k A_k). One forward pass per channel that is not constant.
"""

import torch
from torch import Tensor

from bla.explainers.interface import Card, Explainer
from bla.explainers.occlusion import occluded_logits, smooth_masks, target_scores
from bla.networks.classifier import require_finite


class ScoreCAM(Explainer):
    """Score-CAM at the feature map."""

    title = "Score-CAM"
    card = Card(
        sentence="The channels of the feature map, weighted by the probability of the class when only they are seen.",
        source="Wang et al. 2020",
        needs="features and class scores",
        cost="1 forward pass per channel that varies over the map",
        proof="tests/explainers/test_posthoc.py: a plain loop over channels",
    )
    slow = True

    @torch.no_grad()
    def explain(self, images: Tensor, targets: Tensor, seeds: Tensor) -> Tensor:
        """Maps `[B, h, w]`, none negative; BlaError if a class score is not finite."""
        features = self.classifier.features(images).float()
        require_finite(
            self.classifier.logits(features).isfinite().all()
        )  # also where no channel varies, or all are NaN
        low, high = features.amin(dim=(2, 3), keepdim=True), features.amax(dim=(2, 3), keepdim=True)
        scaled = torch.where(high > low, (features - low) / (high - low), 0)
        grey = self.classifier.extractor.mean.flatten()  # type: ignore[operator]
        weights = torch.zeros(features.shape[:2], device=features.device)
        for image, varies in enumerate((high > low)[..., 0, 0]):
            channels = varies.nonzero()[:, 0]
            masks = smooth_masks(scaled[image : image + 1, channels], images.shape[1:3])
            one = slice(image, image + 1)
            for logits in occluded_logits(self.classifier, images[one], masks, len(channels), grey):
                weights[image, channels] = target_scores(self.classifier, logits, targets[one])[0]
        return (weights[..., None, None] * features).sum(dim=1).relu()
