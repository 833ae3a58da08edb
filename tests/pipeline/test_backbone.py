"""The stage `backbone`: weights that are trained here, read from a file, or downloaded."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from bla.base.download import Source
from bla.networks import backbones
from pipeline.run.settings import load_settings

WEIGHTS = Path("models/backbones/photos.safetensors")


@pytest.fixture
def hub(here, edit_params, save_random_weights, monkeypatch):
    """Weights on a local server, used by the entry `photos`: `hub(sha256)` sets their pinned hash."""
    file = save_random_weights(here / "site/model.safetensors")
    edit_params(here, {"dataset.photos.images.image_size": 32, "dataset.photos.backbone.weights": "timm/small"})
    edit_params(
        here, {"dataset.photos.backbone.architecture": "test_resnet", "dataset.photos.backbone.output_stride": 16}
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=file.parent))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def pin(sha256=None):
        digest = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        source = Source("small.safetensors", (url,), None, f"sha256:{digest}")
        monkeypatch.setitem(backbones.HUB, "timm/small", source)
        return file

    yield pin
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_named_on_the_hub_are_downloaded(hub, end_of):
    file = hub()
    assert end_of("backbone", "photos") is None
    assert Path("data/raw/weights/small.safetensors").read_bytes() == file.read_bytes()
    ours, theirs = load_file(WEIGHTS), load_file(file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_with_another_hash_are_refused(hub, end_of):
    file = hub(sha256="0" * 64)
    message = end_of("backbone", "photos")
    assert message.startswith("error in backbone photos: params.yaml: dataset.photos.backbone: small.safetensors: ")
    for part in (hashlib.sha256(file.read_bytes()).hexdigest(), "0" * 64, "data/raw/weights/small.safetensors"):
        assert part in message
    assert not Path("models").exists()
    assert not list(Path("data/raw/weights").iterdir())


def test_weights_are_read_from_a_file_under_the_data_root(hub, here, end_of, edit_params, save_random_weights):
    edit_params(here, {"dataset.photos.backbone.weights": "own.safetensors"})
    file = save_random_weights(here / "data/raw/own.safetensors")
    assert end_of("backbone", "photos") is None
    assert load_file(WEIGHTS).keys() == load_file(file).keys()


def test_a_damaged_weight_file_is_named_and_the_earlier_weights_are_kept(
    hub, here, end_of, edit_params, save_random_weights
):
    edit_params(here, {"dataset.photos.backbone.weights": "own.safetensors"})
    file = save_random_weights(here / "data/raw/own.safetensors")
    assert end_of("backbone", "photos") is None
    before = WEIGHTS.read_bytes()
    file.write_bytes(file.read_bytes()[:1000])
    message = end_of("backbone", "photos")
    assert message.startswith("error in backbone photos: params.yaml: dataset.photos.backbone: ")
    assert "data/raw/own.safetensors" in message
    assert WEIGHTS.read_bytes() == before


@pytest.mark.parametrize(
    ("normalisation", "warned"),
    [("imagenet", True), ("keras_2021", True), ("half_keras_2021", True), ("half", False), ("model", False)],
)
def test_a_normalisation_that_the_model_was_not_trained_with_is_a_warning(
    normalisation, warned, here, end_of, edit_params, capsys
):
    edit_params(here, {"dataset.painted_birds.backbone.normalisation": normalisation})
    assert end_of("backbone", "painted_birds") is None
    printed = capsys.readouterr().out
    assert ("warning" in printed) == warned
    if warned:
        assert f"painted_birds.backbone.normalisation: {normalisation} has mean and divisor (" in printed
        assert "trained with (0.5, 0.5, 0.5) and (0.5, 0.5, 0.5)" in printed


# Statistics that no named normalisation has, as timm gives them: CLIP's, MobileViT's, and those of dual path networks.
CUSTOM = {
    "resnet50_clip.openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "mobilevit_xxs.cvnets_in1k": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "dpn68.mx_in1k": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
}
NAMED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "keras_2021": ((0.485, 0.456, 0.406), (0.4785394, 0.4732864, 0.4743416)),  # the square roots of ImageNet's
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def shown_in(text):
    """The numbers in the brackets of a warning, bracket by bracket."""
    return [[float(number) for number in part.split(")")[0].split(",")] for part in text.split("(")[1:]]


@pytest.mark.parametrize(("name", "normalisation"), list(zip(CUSTOM, NAMED, strict=True)))
def test_statistics_that_have_no_name_are_shown_beside_those_used_and_model_takes_them(
    name, normalisation, here, end_of, edit_params, save_random_weights, capsys
):
    weights, mean, divisor = f"{name}.safetensors", *CUSTOM[name]
    save_random_weights(here / "data/raw" / weights)
    setting = "dataset.painted_birds.backbone"
    edit_params(here, {f"{setting}.weights": weights, f"{setting}.normalisation": normalisation})
    assert end_of("backbone", "painted_birds") is None
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warning.startswith(f"warning: params.yaml: {setting}.normalisation: {normalisation} has mean and divisor (")
    assert warning.endswith("; `normalisation: model` takes these")
    for found, expected in zip(shown_in(warning), (*NAMED[normalisation], mean, divisor), strict=True):
        assert found == pytest.approx(expected, abs=1e-7)

    edit_params(here, {f"{setting}.normalisation": "model"})
    assert end_of("backbone", "painted_birds") is None
    assert "warning" not in capsys.readouterr().out
    backbone = load_settings().dataset["painted_birds"].backbone
    extractor = backbones.load_backbone(backbone, Path("models/backbones/painted_birds.safetensors"), 32)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = timm.create_model("test_resnet", num_classes=0, output_stride=8).eval()
    plain.load_state_dict(load_file(here / "data/raw" / weights))
    mean, divisor = (torch.tensor(values)[:, None, None] for values in (mean, divisor))
    pixels = (images.permute(0, 3, 1, 2) / 255 - mean) / divisor
    expected = plain.forward_features(pixels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(extractor(images), expected, atol=1e-4, rtol=1e-4)
