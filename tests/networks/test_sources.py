"""Networks by name: features and tail together are the network, which is cut at the last feature map."""

import sys

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from bla.base.errors import BlaError
from bla.networks import own, sources
from bla.networks.sources import build_network, last_layer, split

SIZE = (64, 96)
PIXELS = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


class SmallVGG(nn.Module):
    """Convolutions, a last pool, and fully connected layers, as in VGG."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, pixels):
        return self.classifier(self.pool(self.features(pixels)).flatten(1))


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121"]
)
def test_features_and_tail_together_are_the_torchvision_network(name):
    torch.manual_seed(0)
    network = build_network(f"torchvision/{name}", SIZE, classes=5).eval()
    whole = models.get_model(name, num_classes=5)
    whole.load_state_dict(network.weights())
    with torch.no_grad():
        features = network.features(PIXELS)
        torch.testing.assert_close(network.tail(features), whole.eval()(PIXELS))
    assert features.shape[2:] == (2, 3) if name != "squeezenet1_1" else features.shape[2] > 1


def test_features_and_tail_together_are_the_timm_model():
    network = build_network("test_resnet", SIZE, classes=5, output_stride=16).eval()
    with torch.no_grad():
        torch.testing.assert_close(network.tail(network.features(PIXELS)), network.model(PIXELS))


@pytest.mark.slow
def test_vggs_map_is_taken_before_its_last_pool():
    network = build_network("torchvision/vgg11", (224, 224), classes=2).eval()
    with torch.no_grad():
        features = network.features(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, 512, 14, 14)
    assert sum(isinstance(layer, nn.Linear) for layer in network.parts[1].modules()) == 3
    assert last_layer(network) == "classifier.6.weight"


def test_a_network_is_cut_before_its_last_pool_and_the_tail_has_all_later_layers():
    torch.manual_seed(0)
    model = SmallVGG().eval()
    body, tail = split(model, (32, 48))
    pixels = PIXELS[:, :, :32, :48]
    with torch.no_grad():
        features = body(pixels)
        assert features.shape == (2, 6, 8, 12)
        torch.testing.assert_close(tail(features), model(pixels))
    kinds = [type(layer).__name__ for layer in tail.modules()]
    assert kinds.count("Linear") == 2
    assert kinds.count("MaxPool2d") == 1


@pytest.mark.parametrize("name", ["torchvision/vit_b_16", "vit_tiny_patch16_224"])
def test_a_transformer_without_a_map_is_refused(name):
    def features():
        return build_network(name, (224, 224), classes=2).features(torch.zeros(1, 3, 224, 224))

    with pytest.raises(BlaError, match=r"no feature map|not \[images, channels, height, width\]"):
        features()


def test_without_classes_a_network_has_no_tail_and_ignores_one_in_a_file():
    network = build_network("torchvision/resnet18", SIZE)
    assert network.ignored() == ("fc.weight", "fc.bias")
    assert not any(name.startswith("fc.") for name in network.weights())
    classifier = timm.create_model("test_resnet").pretrained_cfg["classifier"]
    assert build_network("test_resnet", SIZE).ignored() == (f"{classifier}.bias", f"{classifier}.weight")


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize("classes", [None, 5])
def test_googlenets_auxiliary_heads_in_a_file_are_ignored(classes):
    whole = models.get_model("googlenet", num_classes=5, init_weights=False).state_dict()
    unused = {name for name in whole if name.startswith(("aux", "fc." if classes is None else "aux"))}
    network = build_network("torchvision/googlenet", SIZE, classes)
    assert set(network.ignored()) == unused
    assert set(network.weights()) == set(whole) - unused


@pytest.mark.slow
def test_maxvits_buffers_keep_their_names():
    whole = models.get_model("maxvit_t", num_classes=5).eval()
    network = build_network("torchvision/maxvit_t", (224, 224), classes=5).eval()
    assert set(network.weights()) == set(whole.state_dict())
    network.load_weights(whole.state_dict())
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.tail(network.features(pixels)), whole(pixels))


@pytest.mark.parametrize(
    ("name", "message"),
    [("alexnet", "Output size is too small"), ("vit_b_32", "Wrong image height! Expected 224 but got 32!")],
)
def test_images_of_the_wrong_size_are_refused_in_one_line(name, message, capsys):
    with pytest.raises(BlaError) as error:
        build_network(f"torchvision/{name}", (32, 32))
    assert str(error.value).startswith(f"architecture: torchvision/{name} cannot be split (")
    assert str(error.value).endswith(f"{message}); name another")
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_a_map_that_does_not_fit_is_an_error_that_prints_nothing(capsys):
    network = build_network("torchvision/alexnet", SIZE, classes=5).eval()
    for part, value in ((network.features, torch.zeros(1, 4, *SIZE)), (network.tail, torch.zeros(1, 7, 3, 3))):
        with pytest.raises(RuntimeError):
            part(value)
    assert capsys.readouterr() == ("", "")


def added(one, two, pixels):
    first = one(pixels).relu()
    final = first + two(first)
    return final, final.mean((2, 3))


def concatenated(one, two, pixels):
    first = one(pixels).relu()
    pooled = first.mean((2, 3))
    return first, torch.cat([pooled, two(first).mean((2, 3))], dim=1)


def weighed(one, two, pixels):
    final = two(one(pixels).relu())
    final = final * final.mean((2, 3), keepdim=True).sigmoid()
    return final, final.mean((2, 3))


class Joined(nn.Module):
    """Two convolutions whose maps are joined."""

    def __init__(self, join):
        super().__init__()
        torch.manual_seed(0)
        self.join = join
        self.one, self.two = (nn.Conv2d(channels, 4, 3, padding=1) for channels in (3, 4))
        self.head = nn.Linear(8 if join is concatenated else 4, 3)

    def forward(self, pixels):
        return self.head(self.join(self.one, self.two, pixels)[1])


@pytest.mark.parametrize("join", [added, concatenated, weighed])
def test_everything_after_the_cut_depends_on_the_map_alone(join):
    model = Joined(join).eval()
    body, tail = split(model, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(body(PIXELS), join(model.one, model.two, PIXELS)[0])
        torch.testing.assert_close(tail(body(PIXELS)), model(PIXELS))


def test_weights_are_loaded_by_the_names_in_files():
    first, second = (build_network("torchvision/resnet18", SIZE, classes=3) for _ in range(2))
    second.load_weights(first.weights())
    assert all(torch.equal(a, b) for a, b in zip(first.weights().values(), second.weights().values(), strict=True))
    assert set(first.weights()) == set(models.resnet18(num_classes=3).state_dict())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_resnett", "timm has no test_resnett (did you mean test_resnet"),
        ("torchvision/resnet81", "torchvision has no classifier resnet81 (did you mean resnet"),
        ("own/mine", "there is no src/bla/networks/own/mine.py"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(name, message):
    with pytest.raises(BlaError) as error:
        build_network(name, SIZE)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "own/mine"])
def test_settings_of_timm_are_refused_elsewhere(name):
    with pytest.raises(BlaError, match="output_stride: only timm's models have this setting; remove it"):
        build_network(name, SIZE, output_stride=8)
    with pytest.raises(BlaError, match="stochastic_depth: only timm's models have this setting; remove it"):
        build_network(name, SIZE, drop_path_rate=0.2)


@pytest.fixture
def write_own(tmp_path, monkeypatch):
    """`write_own(code)` writes src/bla/networks/own/mine.py, for one test."""

    def write(code):
        (tmp_path / "mine.py").write_text(code)
        monkeypatch.setattr(sources, "OWN", tmp_path)
        monkeypatch.setattr(own, "__path__", [str(tmp_path)])
        monkeypatch.delitem(sys.modules, "bla.networks.own.mine", raising=False)

    return write


MINE = """
from torch import nn
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 8, 8)
    def features(self, pixels):
        return self.layer(pixels)
def build():
    return Mine()
"""


def test_a_user_network_is_read_from_its_file(write_own):
    write_own(MINE)
    network = build_network("own/mine", SIZE)
    with torch.no_grad():
        features = network.features(PIXELS)
        torch.testing.assert_close(features, network.model.layer(PIXELS))
    assert set(network.weights()) == {"layer.weight", "layer.bias"}
    with pytest.raises(BlaError, match="has no `tail`; set tail to pooled, or add one"):
        network.tail(features)


def test_a_user_network_without_features_is_refused(write_own):
    write_own(MINE.replace("def features", "def forward"))
    with pytest.raises(BlaError, match="must return a torch module with `features`"):
        build_network("own/mine", SIZE)
