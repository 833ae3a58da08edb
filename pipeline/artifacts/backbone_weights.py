"""The frozen extractor's weights, from a package, the hub or a file, checked; and the head of a checkpoint."""

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from bla.base.atomic import replacing
from bla.base.download import fetch
from bla.base.errors import BlaError
from bla.method.modules import CHECKPOINT_HEAD, Head
from bla.networks import backbones
from bla.networks.classifier import Classifier, OwnTail
from bla.networks.packaged import PACKAGED, packaged_weights
from bla.own_classifier.weights import read_weights
from pipeline.run.dataset_entry import DatasetEntry
from pipeline.run.environment import WORK, data_path


def save_backbone(path: Path, entry: DatasetEntry) -> None:
    """Write the weights to the path, which has the dataset's name; BlaError unless they fit and give a spatial map.

    With `classifier: own` the head is written too. Prints which tensors of the file are dropped.
    """
    dataset = path.stem
    try:
        source = _source(entry.backbone.weights)
        loaded = read_weights(source)
        extractor = backbones.with_weights(entry.backbone, loaded, source, entry.images.image_size)
        used, trained = backbones.statistics_of(entry.backbone), backbones.trained_with(entry.backbone)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.backbone: {error}") from error
    if trained and trained != used:
        print(
            f"warning: params.yaml: dataset.{dataset}.backbone.normalisation: {entry.backbone.normalisation} has mean and "
            f"divisor {used[0]} and {used[1]}, but the model was trained with {trained[0]} and {trained[1]}; "
            "`normalisation: model` takes these"
        )
    weights = extractor.network.weights()
    kept, head = set(weights), dict[str, Tensor]()
    if entry.has_own_head:
        layers, linear = _with_head(dataset, entry, loaded, source)
        kept |= layers
        head = {f"{CHECKPOINT_HEAD}weight": linear.weight[0], f"{CHECKPOINT_HEAD}bias": linear.bias[0]}
    dropped = [name for name in backbones.plain_names(entry.backbone, loaded) if name not in kept]
    if dropped:
        shown = ", ".join(dropped[:4]) + (f" and {len(dropped) - 4} more" if dropped[4:] else "")
        hint = "; heads are trained here, unless `classifier: own` keeps this one" if entry.can_have_own_head else ""
        print(f"{dataset}: dropped from {entry.backbone.weights}: {shown}{hint}")
    with replacing(path) as part:
        save_file({name: value.contiguous() for name, value in (weights | head).items()}, part)


def _source(weights: str) -> Path:
    """The file of the weights, downloaded or converted if needed; BlaError if there is none."""
    if weights in PACKAGED:
        return packaged_weights(weights, WORK / f"{PACKAGED[weights].architecture}.safetensors")
    if weights in backbones.HUB:
        return fetch(backbones.HUB[weights], data_path("weights"))
    if not (source := data_path(weights)).is_file():
        raise BlaError(
            f"weights: {source}: no such file; name a .safetensors or .pth file (a relative path starts at $BLA_DATA_ROOT), "
            f"weights that can be downloaded ({', '.join(backbones.HUB)}) or are installed ({', '.join(PACKAGED)})"
        )
    return source


def _with_head(dataset: str, entry: DatasetEntry, loaded: dict[str, Tensor], source: Path) -> tuple[set[str], Head]:
    """The names of the whole network's weights, and its head on average-pooled features; BlaError if it has no such head."""
    own, key = replace(entry.backbone, tail="own_softmax"), f"params.yaml: dataset.{dataset}.classifier"
    try:
        extractor = backbones.with_weights(own, loaded, source, entry.images.image_size)
        head = Classifier(extractor, OwnTail(extractor.network)).linear_head()
    except BlaError as error:
        raise BlaError(
            f"{key}: own: {entry.backbone.weights}: {error}. The pipeline keeps a head that is average pooling and one linear "
            "layer, as in ResNet or EfficientNet; set it to trained_here, or use the command `bla` (docs/own_classifier.md)"
        ) from error
    return set(extractor.network.weights()), head
