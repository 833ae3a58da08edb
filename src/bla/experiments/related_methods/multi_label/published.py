"""Class-specificity figures that Stalder et al. 2022 stored with their code: VOC-2007 test, VGG-16.

Mean softmax score, in per cent, of a class on the images that show it: unmasked, and under the class's own mask.
"""

from bla.base.specs import Backbone, Images, PascalVoc

CLASSES = ("bottle", "car", "cat", "dog", "person")
COUNTS = (240, 775, 332, 433, 2097)
"""Test images that show each class: all."""
NO_MASK = (20.57, 70.52, 72.78, 58.00, 69.37)
OWN_MASK = {
    "explainer_network": (15.29, 62.92, 60.55, 57.60, 71.01),
    "grad_cam": (16.10, 50.19, 43.74, 41.88, 56.38),
    "rise": (18.67, 56.66, 49.61, 45.12, 63.52),
}


def published(images: Images, backbone: Backbone, method: str, true: str, mask: str | None, count: int) -> float | None:
    """The published value in the setting of VOC-2007 with VGG-16; None in any other setting, or if there is none.

    `mask` is the class whose mask is laid over the image, None for the whole image; `count` images show the class
    `true`, in the published setting all test images of this class.
    """
    vgg = backbone.architecture.rpartition("/")[2].partition(".")[0] == "vgg16"
    if not (isinstance(images, PascalVoc) and images.validation_images is None and vgg) or true not in CLASSES:
        return None
    place = CLASSES.index(true)
    if count != COUNTS[place]:
        return None
    if mask is None:
        return NO_MASK[place]
    return OWN_MASK[method][place] if mask == true and method in OWN_MASK else None
