"""Metrics of faithfulness: one module per family, and the table of all metrics.

A metric is a number for one map of one image, at the resolution of the cells; means and tests come later. The table
below gives the report its texts and the tables their directions.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric: which direction is better, its unit, its formula, two sentences for readers, and its source."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    unit: str
    formula: str
    meaning: str
    source: str


_TIES = "Cells of equal weight are taken in seeded random orders, and the mean over these is the score."
_ROAD = "Rong et al. 2022; shares as in Ntrougkas et al. 2024 (T-TAME)"
_ROAD_ORDERS: tuple[tuple[str, str, Literal["higher", "lower"]], ...] = (
    ("morf", "most", "lower"),
    ("lerf", "least", "higher"),
)

METRICS = (
    Metric(
        "lime", "rank correlation with LIME", "higher", "Spearman's ρ", "ρ(map, LIME's coefficients)",
        "LIME hides random patches and fits by least squares how much each matters for the classifier's output. "
        "The metric says whether a map orders the patches as LIME does.",
        "Baumhauer et al. 2021, Table 2",
    ),
    *(
        Metric(
            f"average_drop_{share}", f"average drop, {share} %", "lower", "%", "100 max(0, Y − O) / Y",
            "Y is the class's probability on the image, O on the image times the map, scaled to [0, 1] and upsampled"
            + (". " if share == 100 else f", of which the largest {share} % of the pixels are kept. ")
            + "What the map dims becomes black; a good map loses little.",
            "Chattopadhay et al. 2018; as in Gkartzonika et al. 2022",
        )
        for share in (100, 50, 15)
    ),
    *(
        Metric(
            f"increase_{share}", f"increase in confidence, {share} %", "higher", "%", "100 · 1[O > Y]",
            "The share of images whose class becomes more probable when only the map's part of the image is seen"
            + (". " if share == 100 else f", the largest {share} % of the pixels. ")
            + "Equality is no increase.",
            "Chattopadhay et al. 2018; as in Gkartzonika et al. 2022",
        )
        for share in (100, 50, 15)
    ),
    *(
        Metric(
            f"deletion_{background}", f"deletion, {told}", "lower", "area under the curve", "∫ p(share of cells hidden)",
            f"The cells are hidden in the map's order, the most important first ({told}), and the class's probability is "
            "integrated over the share that is hidden. " + _TIES,
            "Petsiuk et al. 2018; cells and blur as in Qi et al. 2020",
        )
        for background, told in (("black", "black"), ("blur", "blurred"))
    ),
    *(
        Metric(
            f"insertion_{background}", f"insertion, {told}", "higher", "area under the curve", "∫ p(share of cells shown)",
            f"The cells are shown in the map's order on a hidden image ({told}), and the class's probability is integrated "
            "over the share that is shown. " + _TIES,
            "Petsiuk et al. 2018; cells and blur as in Qi et al. 2020",
        )
        for background, told in (("black", "black"), ("blur", "blurred"))
    ),
    Metric(
        "road", "ROAD", "higher", "probability", "mean of p(least relevant removed) − p(most relevant removed)",
        "10, 20, 30, 40, 50, 70 and 90 % of the cells are removed, the least or the most relevant first, and each removed pixel "
        "becomes the mean of its neighbours plus a little noise. A good map keeps the class's probability in the first case and "
        "loses it in the second; no black patch shows what was removed.",
        _ROAD,
    ),
    *(
        Metric(
            f"road_{order}", f"ROAD, {relevant} relevant first", better, "probability", f"mean of p({relevant} relevant removed)",
            f"The part of ROAD in which the {relevant} relevant cells are removed first. Only their difference is ranked.",
            _ROAD,
        )
        for order, relevant, better in _ROAD_ORDERS
    ),
    Metric(
        "accuracy_image", "accuracy, a sixth of the patches seen", "higher", "share", "1[argmax = true class]",
        "The classifier sees the image with all but the most important patches black, eight of 49 as L2X-F has. "
        "It is right if it still names the true class.",
        "Baumhauer et al. 2021, section 4.2, of images instead of features",
    ),
    Metric(
        "loss_image", "loss, a sixth of the patches seen", "lower", "nats", "−log p(true class)",
        "The cross-entropy on the same image of which only the eight most important patches of 49 are seen. "
        "It also punishes confidence in a wrong class.",
        "Baumhauer et al. 2021, section 4.2, of images instead of features",
    ),
    Metric(
        "accuracy_features", "accuracy, a sixth of the cells pooled", "higher", "share", "1[argmax = true class]",
        "The classifier's head sees the mean of the most important cells of the feature map, eight of 49, as in the paper's "
        "hard explanations. The backbone has seen the whole image, so that a cell knows of its surroundings.",
        "Baumhauer et al. 2021, section 4.2",
    ),
    Metric(
        "loss_features", "loss, a sixth of the cells pooled", "lower", "nats", "−log p(true class)",
        "The cross-entropy of the head on the mean of the eight most important cells of 49. "
        "Here it is the baseline's head, which no explanation has trained.",
        "Baumhauer et al. 2021, section 4.2",
    ),
    Metric(
        "pointing_game", "pointing game", "higher", "share", "1[distance of the maximum to the mask < 15/224 of the side]",
        "Does the centre of the most important cell lie on the object, or within 15 of 224 pixels of it? "
        "Of several maxima the expected hit of a random one counts.",
        "Zhang et al. 2018, tolerance as in Fong et al. 2019",
    ),
    Metric(
        "iou", "intersection over union", "higher", "share", "|E ∩ M| / |E ∪ M|",
        "E is the hard explanation: a module's own, for other methods the most important 8 cells of 49; M is the object's mask, "
        "and both are compared pixel by pixel. " + _TIES,
        "Stalder et al. 2022",
    ),
    Metric(
        "precision", "precision", "higher", "share", "|E ∩ M| / |E|",
        "The share of the hard explanation that lies on the object. " + _TIES,
        "Stalder et al. 2022",
    ),
    Metric(
        "recall", "recall", "higher", "share", "|E ∩ M| / |M|",
        "The share of the object that lies in the hard explanation. " + _TIES,
        "Stalder et al. 2022",
    ),
    Metric(
        "weight_inside", "weight inside", "higher", "share", "Σ relu(map) M / Σ relu(map)",
        "The share of the map's positive weight that lies on the object. A map without positive weight has no score.",
        "Wang et al. 2020 (energy-based pointing game)",
    ),
    Metric(
        "part_effects", "agreement with parts' effects", "higher", "Spearman's ρ", "ρ(Σ map over part, logit − logit without part)",
        "A part's effect is the change of the predicted class's logit if a painted bird lacks it: has it more of the map's weight? "
        "Large parts win sums: compare with the constant map.",
        "Hesse et al. 2023 (single deletion)",
    ),
    Metric(
        "part_effects_mean", "agreement, mean weights", "higher", "Spearman's ρ", "ρ(mean of map over part, logit − logit without part)",
        "The same with the mean of the map over a part's pixels, so that large parts have no advantage. "
        "A small part shares its cells with its neighbours.",
        "Hesse et al. 2023 (single deletion)",
    ),
    Metric(
        "part_effects_probability", "agreement, probabilities", "higher", "Spearman's ρ", "ρ(Σ map over part, p − p without part)",
        "The same as the first with probabilities instead of logits. "
        "A certain classifier's probability hardly changes, whatever is left out.",
        "Hesse et al. 2023 (single deletion)",
    ),
    Metric(
        "own_part_effects", "agreement with own effects", "higher", "Spearman's ρ", "ρ(Σ map over part, own logit − own logit without part)",
        "A variant against the classifier that it is part of: its own head on the cells that it chose. "
        "Only there is it faithful by construction.",
        "Hesse et al. 2023, for learned explanations",
    ),
    Metric(
        "decisive_part", "weight on the decisive part", "higher", "share", "Σ relu(map) over part / Σ relu(map)",
        "Two painted species differ in one part alone: what share of the map's positive weight lies on it? "
        "The object mask shows the part's share of the bird.",
        "ours",
    ),
    Metric(
        "randomised_head", "similarity, random head", "lower", "Spearman's |ρ|", "|ρ(map, map of the classifier with a random head)|",
        "The head's weights are drawn anew and the same class is explained; the mean over several draws, one for slow methods. "
        "A map that stays as it was, or is reversed, does not depend on what decides the class: as edges, which see the image alone.",
        "Adebayo et al. 2018",
    ),
    Metric(
        "randomised_network", "similarity, random network", "lower", "Spearman's |ρ|", "|ρ(map, map of the random classifier)|",
        "The same with every layer of the backbone random too, the end of a cascade from the head downwards, in which batch "
        "normalisation measures its statistics anew. A map that stays as it was shows the image and not the classifier.",
        "Adebayo et al. 2018",
    ),
    Metric(
        "retrained_head", "similarity, random head, retrained", "lower", "Spearman's |ρ|", "|ρ(map, map of a module trained on it)|",
        "A learned explanation never reads the head, so its module is trained anew on the classifier with a random head, which "
        "stays. If the map stays too, training found it without the classifier's help.",
        "Adebayo et al. 2018, for learned explanations",
    ),
    Metric(
        "retrained_network", "similarity, random network, retrained", "lower", "Spearman's |ρ|", "|ρ(map, map of a module trained on it)|",
        "The same with every layer of the backbone random too. "
        "If the map stays as it was, it shows the image and not the classifier.",
        "Adebayo et al. 2018, for learned explanations",
    ),
    Metric(
        "self_agreement", "agreement with itself", "higher", "Spearman's ρ", "ρ(map, map with other random numbers)",
        "A method that draws random masks or patterns explains the image once more with other ones, a slow one only few images. "
        "No other similarity of its maps can be expected to be larger, so that this one says how far to trust them, and is not ranked.",
        "Baumhauer et al. 2021, section 4.3, for LIME",
    ),
    Metric(
        "stability", "stability", "higher", "Spearman's ρ", "ρ(map, map of the image with noise)",
        "Gaussian noise that hardly shows, the same for all methods, is added to the pixels and the same class is explained. "
        "A map that changes its order says more about noise than about the image; controls that ignore the image have no score.",
        "Yeh et al. 2019, with rank correlation",
    ),
    Metric(
        "forwards", "forward passes", "lower", "images", "images through the backbone for one map",
        "What a map costs: how often the backbone sees an image, counted while the maps were made. "
        "Training, which learned methods need once, is not in it.",
        "counted",
    ),
    Metric(
        "backwards", "backward passes", "lower", "images", "gradients for one map",
        "Gradients of the class's score for one map. Methods without any treat the classifier as a black box, "
        "or read its features.",
        "counted",
    ),
    Metric(
        "seconds", "time", "lower", "seconds", "seconds for one map",
        "Wall time of a map on the machine that ran the pipeline, the only number here that another run does not repeat. "
        "Training, which learned methods need once, is not in it.",
        "measured",
    ),
)  # fmt: skip
"""Every metric, in the order of the tables."""

BY_NAME = {metric.name: metric for metric in METRICS}
