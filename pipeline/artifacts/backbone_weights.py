"""The frozen extractor's weights, from a package, the hub or a file, checked."""

from pathlib import Path

from safetensors.torch import save_file

from bla.base.atomic import replacing
from bla.base.download import fetch
from bla.base.errors import BlaError
from bla.networks import backbones
from bla.networks.packaged import PACKAGED, packaged_weights
from pipeline.run.dataset_entry import DatasetEntry
from pipeline.run.environment import WORK, data_path


def save_backbone(path: Path, entry: DatasetEntry) -> None:
    """Write the weights to the path, which has the dataset's name; BlaError unless they fit and give a spatial map."""
    dataset = path.stem
    weights = entry.backbone.weights
    try:
        if weights in PACKAGED:
            source = packaged_weights(weights, WORK / f"{PACKAGED[weights].architecture}.safetensors")
        elif weights in backbones.HUB:
            source = fetch(backbones.HUB[weights], data_path("weights"))
        elif not (source := data_path(weights)).is_file():
            raise BlaError(
                f"weights: {source}: no such file; name a .safetensors file (a relative path starts at $BLA_DATA_ROOT), "
                f"weights that can be downloaded ({', '.join(backbones.HUB)}) or are installed ({', '.join(PACKAGED)})"
            )
        extractor = backbones.load_backbone(entry.backbone, source, entry.images.image_size)
        used, trained = backbones.statistics_of(entry.backbone), backbones.trained_with(entry.backbone)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.backbone: {error}") from error
    if trained and trained != used:
        print(
            f"warning: params.yaml: dataset.{dataset}.backbone.normalisation: {entry.backbone.normalisation} has mean and "
            f"divisor {used[0]} and {used[1]}, but the model was trained with {trained[0]} and {trained[1]}; "
            "`normalisation: model` takes these"
        )
    with replacing(path) as part:
        save_file({name: value.contiguous() for name, value in extractor.network.weights().items()}, part)
