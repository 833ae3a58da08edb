"""Effects of painted parts on the explained classifier and on the variants' own classifiers."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bla.base.specs import Explaining, PaintedBirds
from bla.datasets.painted_birds import PARTS, scenes, without_each_part
from bla.method.evaluation import scores_on_hard_explanation
from bla.method.modules import Head, Module
from bla.metrics.interventions import agreement, effects_of, part_weights, weight_on_part
from bla.networks.classifier import Classifier
from bla.networks.patches import batch_size_for
from pipeline.artifacts.explained_images import ExplainedImages
from pipeline.artifacts.images import load_masks
from pipeline.artifacts.models import load_variant
from pipeline.run.settings import Settings

Array = NDArray[np.float64]
EXPLAINED = "explained"
"""The classifier that all methods explain, among the variants' own ones."""
PART_EFFECTS = ["classifier", "part", "n", "effect_logit", "standard_error_logit", "effect_probability", "standard_error_probability"]  # fmt: skip


class Interventions:
    """What the absence of each part does to each classifier of the run that is measured, on M explained images.

    `logits` and `probabilities` are the effects `[M, S]` by classifier: `EXPLAINED`, or a variant with its own head and
    pooling. Each is measured on the class that the classifier predicts. `changes` are bool `[M, S]`: whether the classifier
    predicts another class without the part.
    """

    def __init__(
        self, dataset: str, settings: Settings, explained: ExplainedImages, targets: NDArray[np.int64]
    ) -> None:
        spec, run = settings.dataset[dataset].images, settings.faithfulness.run
        assert isinstance(spec, PaintedBirds)
        masks = load_masks(dataset, "test")
        assert masks is not None
        self.masks = np.array(masks[explained.numbers])
        split = "validation" if spec.validation_images else "test"
        painted = scenes(spec, split, settings.seed)
        images = torch.from_numpy(without_each_part([painted[number] for number in explained.numbers]))
        every = torch.cat([explained.images.cpu()[None], images])  # [1 + S, M, H, W, 3]
        model, device = explained.classifier_of(run), explained.images.device
        loaded = {key: load_variant(dataset, key, settings) for key in settings.variants}
        tails: dict[str, Callable[[Tensor], Tensor]] = {EXPLAINED: lambda features: model.logits(features)[0]}
        for key, (variant, head, module) in loaded.items():
            own = Head(head.weight[run : run + 1].to(device), head.bias[run : run + 1].to(device))
            tails[key] = _own_tail(variant, own, module.run(run).to(device))
        scores = _scores(model, tails, every)
        self.logits, self.probabilities, self.changes = {}, {}, {}
        for key, (whole, *without) in scores.items():
            classes = targets if key == EXPLAINED else whole.argmax(axis=1)
            likely, *less = (model.probabilities(torch.from_numpy(part)).numpy() for part in (whole, *without))
            self.changes[key] = np.stack([part.argmax(axis=1) != whole.argmax(axis=1) for part in without], axis=1)
            self.logits[key] = effects_of(whole, np.stack(without), classes)
            self.probabilities[key] = effects_of(likely, np.stack(less), classes)
        self.visible = np.asarray(self.masks.any(axis=(2, 3)))
        self.decisive = None if spec.differ_in is None else PARTS.index(spec.differ_in)

    def metrics(self, maps: Mapping[str, Array], constant_maps: str) -> pd.DataFrame:
        """The metrics of maps `[M, h, w]` by method: a row per method, metric and image, without NaN."""
        visible, rows = self.visible, []
        for name, values in maps.items():
            sums, means = part_weights(values, self.masks)
            scores = {
                "part_effects": agreement(sums, self.logits[EXPLAINED], visible, constant_maps),
                "part_effects_mean": agreement(means, self.logits[EXPLAINED], visible, constant_maps),
                "part_effects_probability": agreement(sums, self.probabilities[EXPLAINED], visible, constant_maps),
            }
            if name in self.logits:
                scores["own_part_effects"] = agreement(sums, self.logits[name], visible, constant_maps)
            if self.decisive is not None:
                scores["decisive_part"] = weight_on_part(values, self.masks[:, self.decisive])
            rows += [
                pd.DataFrame({"method": name, "metric": metric, "image": range(len(values)), "value": of_images})
                for metric, of_images in scores.items()
            ]
        return pd.concat(rows, ignore_index=True).dropna(subset="value")

    def table(self) -> pd.DataFrame:
        """Mean effects of the visible parts: a row per classifier and part, with standard errors and n."""
        rows, visible = [], self.visible
        for key in self.logits:
            for place, part in enumerate(PARTS):
                row: dict[str, object] = {"classifier": key, "part": part, "n": int(visible[:, place].sum())}
                for name, effects in (("logit", self.logits[key]), ("probability", self.probabilities[key])):
                    seen = effects[visible[:, place], place]
                    row |= {
                        f"effect_{name}": seen.mean(),
                        f"standard_error_{name}": seen.std(ddof=1) / len(seen) ** 0.5,
                    }
                rows.append(row)
        return pd.DataFrame(rows)[PART_EFFECTS]


def _own_tail(variant: Explaining, head: Head, module: Module) -> Callable[[Tensor], Tensor]:
    """The class scores `[B, K]` of a variant for feature maps `[B, C, h, w]`, with its hard explanation."""
    return lambda features: scores_on_hard_explanation(features.flatten(2).mT.float(), variant, head, module)[0]


@torch.no_grad()
def _scores(model: Classifier, tails: Mapping[str, Callable[[Tensor], Tensor]], images: Tensor) -> dict[str, Array]:
    """The class scores `[1 + S, M, K]` of each classifier for images `[1 + S, M, H, W, 3]`, from one pass over them."""
    flat = images.flatten(0, 1)
    parts = []
    for batch in flat.split(batch_size_for(model.device, images.shape[2:4])):
        features = model.features(batch.to(model.device))
        parts.append({key: tail(features).double().cpu() for key, tail in tails.items()})
    return {key: torch.cat([part[key] for part in parts]).view(*images.shape[:2], -1).numpy() for key in tails}
