"""The stage `backbone`: weights that are trained here, read from a file, or downloaded."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bla.base.download import Source
from bla.networks import backbones

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
    ("normalisation", "warned"), [("imagenet", True), ("half_keras_2021", True), ("half", False), ("model", False)]
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
