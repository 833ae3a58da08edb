"""Stage `backbone@DATASET`: the frozen extractor's weights, checked, in models/backbones/DATASET.safetensors."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from bla.base.atomic import replacing
from bla.base.download import fetch
from bla.base.errors import BlaError
from bla.datasets import cluttered_digits
from bla.networks import backbones
from bla.networks.packaged import PACKAGED, packaged_weights
from bla.networks.pretraining import pretrain
from bla.runtime.cache import Arrays, cache_key, cached
from pipeline.artifacts.models import BACKBONES
from pipeline.run.entries import embedded_digits
from pipeline.run.environment import WORK, choose_device, data_path
from pipeline.run.settings import Settings, load_settings


def main(dataset: str) -> None:
    """Train the embedded backbone, or read weights from a file; BlaError unless they fit and give a spatial map."""
    settings = load_settings()
    entry = settings.dataset[dataset]
    weights = entry.backbone.weights
    try:
        if weights == "pretrained_on_digits":
            source = _pretrained(settings, dataset)
        elif weights in PACKAGED:
            source = packaged_weights(weights, WORK / f"{PACKAGED[weights].architecture}.safetensors")
        elif weights in backbones.HUB:
            source = fetch(backbones.HUB[weights], data_path("weights"))
        elif not (source := data_path(weights)).is_file():
            raise BlaError(
                f"weights: {source}: no such file; name a .safetensors file (a relative path starts at $BLA_DATA_ROOT), "
                f"weights that can be downloaded ({', '.join(backbones.HUB)}) or are installed ({', '.join(PACKAGED)}), "
                "or pretrained_on_digits"
            )
        extractor = backbones.load_backbone(entry.backbone, source, entry.images.image_size)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.backbone: {error}") from error
    with replacing(BACKBONES / f"{dataset}.safetensors") as part:
        save_file({name: value.contiguous() for name, value in extractor.network.weights().items()}, part)


def _pretrained(settings: Settings, dataset: str) -> Path:
    """The weights trained on cluttered digits; datasets with the same settings share them in .work."""
    # Stochastic depth is used in extraction only, not in pretraining.
    backbone = replace(settings.dataset[dataset].backbone, stochastic_depth=0, draws=1)
    digits, device, name = (
        embedded_digits(settings),
        choose_device(),
        f"pretrained-{backbone.architecture}-{backbone.output_stride}",
    )
    key = cache_key([Path(__file__)], [backbone, digits, settings.pretraining, settings.seed, str(device)], [])
    checkpoint = WORK / f"pretraining-{key}.safetensors"

    def train() -> Arrays:
        data = cluttered_digits.generate(digits, "train", settings.seed)
        images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
        state = pretrain(backbone, images, labels, settings.pretraining, settings.seed, device, checkpoint)
        return {name: value.numpy() for name, value in state.items()}

    cached(WORK, name, key, train)
    checkpoint.unlink(missing_ok=True)
    return WORK / f"{name}-{key}.safetensors"
