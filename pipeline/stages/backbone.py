"""Stage `backbone@DATASET`: the frozen extractor's weights, checked, in models/backbones/DATASET.safetensors."""

from pipeline.artifacts.backbone_weights import save_backbone
from pipeline.artifacts.models import BACKBONES
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Read weights from a package, the hub or a file; BlaError unless they fit and give a spatial map."""
    save_backbone(BACKBONES / f"{dataset}.safetensors", load_settings().dataset[dataset])
