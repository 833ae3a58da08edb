"""Stage `backbone@DATASET`: the frozen extractor's weights, checked, in models/backbones/DATASET.safetensors."""

from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save_file

from bla.base.download import fetch
from bla.base.errors import BlaError
from bla.datasets import cluttered_digits
from bla.networks import backbones, patches, pretraining
from pipeline.artifacts.files import content_key, replacing
from pipeline.artifacts.paths import BACKBONES
from pipeline.run.settings import Settings, load_settings
from pipeline.run.stage import WORK, choose_device, data_path, run_stage


def main(dataset: str) -> None:
    """Train the embedded backbone or take the weights from a file; either way they must fit and give a spatial map."""
    settings = load_settings()
    entry = settings.dataset[dataset]
    try:
        if entry.backbone.weights == "pretrained_on_digits":
            source = _pretrained(settings, dataset)
        elif entry.backbone.weights in backbones.HUB:
            source = fetch(backbones.HUB[entry.backbone.weights], data_path("weights"))
        else:
            source = data_path(entry.backbone.weights)
            if not source.is_file():
                known = ", ".join(backbones.HUB)
                raise BlaError(
                    f"weights: {source}: no such file; name a .safetensors file (a relative path starts at $BLA_DATA_ROOT), "
                    f"weights that can be downloaded ({known}), or pretrained_on_digits"
                )
        extractor = backbones.load_backbone(entry.backbone, source, entry.images.image_size)
    except BlaError as error:
        raise BlaError(f"params.yaml: dataset.{dataset}.backbone: {error}") from error
    with replacing(BACKBONES / f"{dataset}.safetensors") as part:
        save_file({name: value.contiguous() for name, value in extractor.model.state_dict().items()}, part)


def _pretrained(settings: Settings, dataset: str) -> Path:
    """The weights trained on cluttered digits, from .work if another dataset has trained the same there.

    The file's name is a hash of all that decides its bytes, the code included.
    """
    # Stochastic depth is for extraction: it does not change what is trained here.
    backbone = replace(settings.dataset[dataset].backbone, stochastic_depth=0, draws=1)
    digits = settings.digits()
    told = [asdict(backbone), asdict(digits), asdict(settings.pretraining), settings.seed, str(choose_device())]
    code = [Path(module.__file__ or "").read_text() for module in (backbones, pretraining, patches, cluttered_digits)]
    key = content_key([told, code])
    weights = WORK / f"pretrained-{key}.safetensors"
    if not weights.exists():
        data = cluttered_digits.generate(digits, "train", settings.seed)
        checkpoint = WORK / f"pretraining-{key}.safetensors"
        state = pretraining.pretrain(backbone, data, settings.pretraining, settings.seed, choose_device(), checkpoint)
        with replacing(weights) as part:
            save_file({name: value.contiguous() for name, value in state.items()}, part)
        checkpoint.unlink()
    return weights


if __name__ == "__main__":
    run_stage(main)
