"""Do masks agree with the objects, pixel by pixel? (Stalder et al. 2022, section 4; code that they released.)

    scores = agreement(masks, objects)  # [M, H, W] in [0, 1], bool [M, H, W] -> {"f1": [M], "iou": [M], ...}

A mask is that of all classes of an image, an object the union of all objects. Images without an object, or that one
covers completely, have NaN where a score needs the object, its background or its boundary. A pixel is selected at a
threshold t if its mask is larger than t.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.stats import rankdata

from bla.metrics import Metric

Array = NDArray[np.float64]
Objects = NDArray[np.bool_]

F1_THRESHOLDS = (0.25, 0.5, 0.75)
IOU_THRESHOLDS = tuple(step / 10 for step in range(1, 10))
BOUNDARY_THRESHOLD, BOUNDARY_PIXELS = 0.5, 3
_STALDER = "Stalder et al. 2022"

# fmt: off
SEGMENTATION = (
    Metric("f1", "F1", "higher", "0 to 1", "2 tp / (2 tp + fp + fn)",
           "The overlap of the selected pixels with the object, averaged over the thresholds 0.25, 0.5 and 0.75.", _STALDER),
    Metric("soft_f1", "F1, continuous", "higher", "0 to 1", "2 Σ m s / (Σ m + Σ s)",
           "The same with the mask's values as weights, without a threshold.", _STALDER),
    Metric("iou", "intersection over union", "higher", "0 to 1", "tp / (tp + fp + fn)",
           "The overlap of the selected pixels with the object, averaged over the thresholds 0.1 to 0.9.", _STALDER),
    Metric("soft_iou", "IoU, continuous", "higher", "0 to 1", "Σ min(m, s) / Σ max(m, s)",
           "The same with the mask's values as weights, without a threshold.", _STALDER),
    Metric("soft_accuracy", "accuracy, continuous", "higher", "0 to 1", "1 − mean |m − s|",
           "How near the mask is to the object's, averaged over all pixels.", _STALDER),
    Metric("auc", "area under the ROC curve", "higher", "0 to 1", "P(m on the object > m beside it) + P(equal) / 2",
           "Whether pixels of the object have larger values than others; a constant mask has 0.5.", _STALDER),
    Metric("object_coverage", "coverage of the object", "higher", "0 to 1", "1 − mean max(0, s − m) / mean s",
           "The share of the object that the mask shows.", _STALDER),
    Metric("background_coverage", "coverage of the background", "lower", "0 to 1", "mean max(0, m − s) / (1 − mean s)",
           "The share of the background that the mask shows.", _STALDER),
    Metric("boundary_f", "boundary F, 3 pixels", "higher", "0 to 1", "2 P R / (P + R)",
           "P is the share of the mask's boundary (at 0.5) within 3 pixels of the object's boundary, R the reverse. "
           "The image's edge is no boundary.", "ours; after Martin et al. 2004"),
)
# fmt: on


def agreement(masks: Array, objects: Objects) -> dict[str, Array]:
    """The scores `[M]` of masks `[M, H, W]` in [0, 1] against objects, bool `[M, H, W]`, by the names of `SEGMENTATION`."""
    true = objects.astype(np.float64)
    axes, size = (1, 2), true.mean(axis=(1, 2))
    both = (masks * true).sum(axis=axes)
    missed, surplus = np.maximum(0, true - masks).mean(axis=axes), np.maximum(0, masks - true).mean(axis=axes)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "f1": np.mean([_selected_f1(masks > t, objects) for t in F1_THRESHOLDS], axis=0),
            "soft_f1": 2 * both / (masks.sum(axis=axes) + true.sum(axis=axes)),
            "iou": np.mean([_selected_iou(masks > t, objects) for t in IOU_THRESHOLDS], axis=0),
            "soft_iou": np.minimum(masks, true).sum(axis=axes) / np.maximum(masks, true).sum(axis=axes),
            "soft_accuracy": 1 - np.abs(masks - true).mean(axis=axes),
            "object_coverage": 1 - missed / size,
            "background_coverage": np.where(size < 1, surplus / (1 - size), np.nan),
        }
    found = {name: np.where(size > 0, values, np.nan) for name, values in found.items()}
    pairs = list(zip(masks, objects, strict=True))
    found["auc"] = np.array([_auc(mask, true) for mask, true in pairs])
    found["boundary_f"] = np.array([_boundary_f(mask > BOUNDARY_THRESHOLD, true) for mask, true in pairs])
    return {metric.name: found[metric.name] for metric in SEGMENTATION}


def _selected_f1(selected: Objects, objects: Objects) -> Array:
    both = (selected & objects).sum(axis=(1, 2))
    return np.asarray(2 * both / (selected.sum(axis=(1, 2)) + objects.sum(axis=(1, 2))))


def _selected_iou(selected: Objects, objects: Objects) -> Array:
    return np.asarray((selected & objects).sum(axis=(1, 2)) / (selected | objects).sum(axis=(1, 2)))


def _auc(mask: Array, true: Objects) -> float:
    """Mann and Whitney's U as a share of all pairs; NaN without an object or a background."""
    count = int(true.sum())
    if count in (0, true.size):
        return np.nan
    ranks = rankdata(mask)[true.ravel()].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (true.size - count)))


def boundary(mask: Objects) -> Objects:
    """The pixels of a mask `[H, W]` that have a pixel outside it above, below, left or right."""
    return np.asarray(mask & ~binary_erosion(mask, border_value=1))


def _boundary_f(mask: Objects, true: Objects) -> float:
    """The F measure of two masks' boundaries; NaN if the true one has none, 0 if only the other has none."""
    of_mask, of_true = boundary(mask), boundary(true)
    if not of_true.any():
        return np.nan
    if not of_mask.any():
        return 0.0
    precision = (distance_transform_edt(~of_true)[of_mask] <= BOUNDARY_PIXELS).mean()
    recall = (distance_transform_edt(~of_mask)[of_true] <= BOUNDARY_PIXELS).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
