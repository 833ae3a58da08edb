"""Training of the embedded backbone: resuming gives the same bytes, patches are hidden late, bad input is refused."""

from dataclasses import replace

import pytest
import timm
import torch

from bla.base.errors import BlaError
from bla.base.specs import Backbone, ClutteredDigits, Pretraining
from bla.datasets import cluttered_digits
from bla.networks import pretraining
from bla.networks.patches import occlude
from bla.networks.pretraining import pretrain
from pipeline.run.settings import load_settings
from pipeline.stages import backbone as stage

CPU = torch.device("cpu")
RESNET = Backbone(architecture="test_resnet", weights="w", normalisation="half", output_stride=16)
DIGITS = ClutteredDigits(
    kind="cluttered_digits",
    classes=(3, 8),
    train_images=64,
    test_images=32,
    image_size=32,
    digit_size=16,
    fragments=2,
    fragment_size=8,
)
PLAN = Pretraining(epochs=2, batch_size=16, learning_rate=0.01, weight_decay=0.05, occlusion=0.5)


@pytest.fixture(scope="module")
def digits():
    """Images and labels."""
    found = cluttered_digits.generate(DIGITS, "train", 0)
    return torch.from_numpy(found.images), torch.from_numpy(found.labels)


def to_bytes(state):
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.filterwarnings("error")
def test_pretraining_resumes_to_the_same_bytes(digits, tmp_path, monkeypatch):
    undisturbed = pretrain(RESNET, *digits, PLAN, 0, CPU, tmp_path / "a" / "checkpoint")
    assert undisturbed.keys() == timm.create_model("test_resnet", num_classes=0).state_dict().keys()
    batches = []

    def killed(images, patterns, grid):
        batches.append(len(images))
        if len(batches) == 6:  # the second batch of the second epoch
            raise KeyboardInterrupt
        return occlude(images, patterns, grid)

    monkeypatch.setattr(pretraining, "occlude", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(RESNET, *digits, PLAN, 0, CPU, tmp_path / "killed")
    for checkpoint in ("killed", "a/checkpoint"):  # after one epoch, and after both
        torch.rand(1)  # other random numbers do not matter
        resumed = pretrain(RESNET, *digits, PLAN, 0, CPU, tmp_path / checkpoint)
        assert to_bytes(resumed) == to_bytes(undisturbed)
    assert to_bytes(pretrain(RESNET, *digits, PLAN, 1, CPU, tmp_path / "b")) != to_bytes(undisturbed)


def test_patches_are_black_only_in_the_second_half_of_the_epochs(digits, tmp_path, monkeypatch):
    shares = []

    def occlude(images, patterns, grid):
        shares.append(1 - patterns.double().mean(dim=1))
        return images

    monkeypatch.setattr(pretraining, "occlude", occlude)
    pretrain(RESNET, *digits, replace(PLAN, epochs=4), 0, CPU, tmp_path / "checkpoint")
    before, after = torch.cat(shares[:8]), torch.cat(shares[8:])  # 64 images in batches of 16
    assert len(after) == 2 * 64
    assert not before.any()
    assert after.max() < 0.5 + 4 * (0.25 / 49) ** 0.5
    assert abs(after.mean() - 0.25) < 0.06  # uniform between 0 and 0.5
    assert len(after.unique()) > 10


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (replace(PLAN, learning_rate=1e30), r"epoch 1; lower pretraining\.learning_rate"),
        (replace(PLAN, batch_size=65), r"pretraining\.batch_size: 65 .* 64 training images"),
    ],
)
def test_impossible_pretraining_is_refused(plan, message, digits, tmp_path):
    with pytest.raises(BlaError, match=message):
        pretrain(RESNET, *digits, plan, 0, CPU, tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"damaged",
        lambda data: data[:-100],
        lambda data: flip(data, len(data) - 1),
        lambda data: flip(data, len(data) // 2),
        lambda data: data.replace(b"sha256", b"sha255"),
    ],
    ids=["text", "cut", "last byte", "a byte in the middle", "no hash"],
)
def test_a_damaged_checkpoint_is_reported_and_training_starts_again(damage, digits, tmp_path, monkeypatch, capsys):
    checkpoint = tmp_path / "checkpoint"
    whole = pretrain(RESNET, *digits, PLAN, 0, CPU, checkpoint)
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    capsys.readouterr()
    again = pretrain(RESNET, *digits, PLAN, 0, CPU, checkpoint)
    printed = capsys.readouterr().out
    assert f"{checkpoint}: damaged; training starts again" in printed
    assert "epoch 1 of" in printed
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("dataset", ["cluttered_digits", "cluttered_3_vs_8"])
def test_the_stage_pretrains_on_the_training_images_of_cluttered_digits(dataset, here, monkeypatch):
    class StopHereError(Exception):
        pass

    def generate(*arguments):
        calls.append(arguments)
        raise StopHereError

    settings, calls = load_settings(), []
    monkeypatch.setattr(cluttered_digits, "generate", generate)
    with pytest.raises(StopHereError):
        stage.main(dataset)
    assert calls == [(settings.dataset["cluttered_digits"].images, "train", settings.seed)]
