"""CAM: which cells of the feature map speak for the class?

Zhou et al. 2016, "Learning deep features for discriminative localization". After average pooling the logit of class c is
the mean over cells of w_c . f_i (plus the bias), so that w_c . f_i is what cell i contributes. Grad-CAM (Selvaraju et al.
2017) of such a classifier is the positive part of the same map, divided by the number of cells.

    maps = cam(features, head_weight, targets)           # may be negative
    maps = cam(features, head_weight, targets).relu()    # Grad-CAM, up to a factor
"""

from torch import Tensor


def cam(features: Tensor, head_weight: Tensor, targets: Tensor) -> Tensor:
    """Maps `[R, B, n]` of features `[B, n, C]` for heads `[R, K, C]` and target classes `[R, B]`."""
    runs, _, channels = head_weight.shape
    wanted = head_weight.gather(1, targets[..., None].expand(runs, -1, channels))  # [R, B, C]
    return (features @ wanted[..., None])[..., 0]  # "bnc,rbc->rbn"
