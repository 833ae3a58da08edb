"""Networks by name, split into the part up to the last feature map and the tail after it.

    network = build_network("torchvision/vgg16", (224, 224), classes=1000)
    features = network.features(pixels)      # [B, 3, H, W] -> [B, C, h, w], for VGG-16 [B, 512, 14, 14]
    scores = network.tail(features)          # [B, K]

| architecture | source | feature map |
|---|---|---|
| `NAME` | timm | what `forward_features` returns |
| `torchvision/NAME` | torchvision | the last map before pooling: VGG's is before its last pool |
| `own/NAME` | `build()` in `src/bla/networks/own/NAME.py` | the module's `features`; a `tail` is needed only if the entry's `tail` is own |
"""

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from bla.base.errors import BlaError

OWN = Path(__file__).parent / "own"
"""The folder of the user's own networks, one file each."""


class Network(nn.Module):
    """A network split at its feature map. `parts` hold its weights, under the names used in files."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    @property
    def model(self) -> nn.Module:
        """The network, or what makes its feature map."""
        return self.parts[0]

    def features(self, pixels: Tensor) -> Tensor:
        """The feature map `[B, C, h, w]` of normalised pixels `[B, 3, H, W]`."""
        result: Tensor = self.model.features(pixels)  # type: ignore[operator]
        return result

    def tail(self, features: Tensor) -> Tensor:
        """Class scores `[B, K]` of a feature map; BlaError if the network has no layers after it."""
        if not hasattr(self.model, "tail"):
            raise BlaError("tail: the network has no `tail`; set tail to pooled, or add one")
        result: Tensor = self.model.tail(features)  # type: ignore[operator]
        return result

    def weights(self) -> dict[str, Tensor]:
        """Weights and buffers by the names in files."""
        return {name: value for part in self.parts for name, value in part.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Load what `weights` returned."""
        for part in self.parts:
            part.load_state_dict({name: weights[name] for name in part.state_dict()})

    def ignored(self) -> tuple[str, ...]:
        """Name prefixes of weights that are ignored in files: those of a tail that this network does not have."""
        return ()


class TimmNetwork(Network):
    """A timm model; without a tail it has no classifier (`num_classes=0`)."""

    def __init__(self, architecture: str, classes: int, **options: Any) -> None:
        import timm  # takes a second or two, and not every stage builds a network

        super().__init__([timm.create_model(architecture, pretrained=False, num_classes=classes, **options)])
        self.architecture = architecture

    def features(self, pixels: Tensor) -> Tensor:
        """The map, permuted where the model keeps channels last; BlaError if it has none."""
        features = self.model.forward_features(pixels)  # type: ignore[operator]
        if not isinstance(features, Tensor):
            raise no_map(None)
        channels = self.model.num_features
        last = features.ndim == 4 and features.shape[3] == channels and features.shape[1] != channels
        if features.ndim == 4 and getattr(self.model, "output_fmt", "NHWC" if last else "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        if features.ndim != 4 or features.shape[1] != channels:
            raise no_map(features)
        return features

    def tail(self, features: Tensor) -> Tensor:
        """timm's `forward_head`."""
        last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        result: Tensor = self.model.forward_head(features.permute(0, 2, 3, 1) if last else features)  # type: ignore[operator]
        return result

    def ignored(self) -> tuple[str, ...]:
        """The weights of timm's classifier, batch normalisation in front of it included, if the model was built without it."""
        if self.model.num_classes:
            return ()
        import timm

        whole = timm.create_model(self.architecture, pretrained=False, num_classes=1)
        return tuple(sorted(whole.state_dict().keys() - self.weights().keys()))


class SplitNetwork(Network):
    """A network traced by torch.fx and cut at its last feature map; the first part makes the map, the second is the tail."""

    def __init__(self, parts: Sequence[nn.Module], whole: nn.Module) -> None:
        super().__init__(parts)
        used = self.weights()
        self.left_out = tuple(name for name in whole.state_dict() if name not in used)

    def features(self, pixels: Tensor) -> Tensor:
        """The map at the cut."""
        # `forward`, since calling a traced module prints a traceback if it fails, even if the error is caught.
        result: Tensor = self.parts[0].forward(pixels)
        return result

    def tail(self, features: Tensor) -> Tensor:
        """The rest of the network."""
        result: Tensor = self.parts[1].forward(features)
        return result

    def ignored(self) -> tuple[str, ...]:
        """Weights that only training uses, such as GoogLeNet's auxiliary heads, and the tail's if the network has none."""
        return self.left_out


def build_network(
    architecture: str, image_size: tuple[int, int], classes: int | None = None, **options: Any
) -> Network:
    """A network with random weights, in training mode; with `classes` it includes its own tail, with that many class scores.

    `options` are timm's. Raises BlaError if no source knows the architecture, or if it has no spatial feature map for
    images of this height and width.
    """
    source, _, name = architecture.rpartition("/")
    if source in ("torchvision", "own") and options:
        setting = next(iter(options)).replace("drop_path_rate", "stochastic_depth")
        raise BlaError(f"{setting}: only timm's models have this setting; remove it")
    if source == "torchvision":
        return _torchvision(name, image_size, classes)
    if source == "own":
        return _own(name)
    import timm

    if not timm.is_model(architecture):
        raise BlaError(f"architecture: timm has no {architecture}{_did_you_mean(architecture, timm.list_models())}")
    return TimmNetwork(architecture, classes or 0, **options)


def last_layer(network: Network) -> str:
    """The name of the last layer with a weight, which gives the class scores."""
    names = [name for part in network.parts for name, _ in part.named_parameters() if name.endswith(".weight")]
    return names[-1]


def _own(name: str) -> Network:
    names = sorted(path.stem for path in OWN.glob("[!_]*.py"))
    if name not in names:
        raise BlaError(f"architecture: there is no src/bla/networks/own/{name}.py{_did_you_mean(name, names)}")
    model = importlib.import_module(f"bla.networks.own.{name}").build()
    if not isinstance(model, nn.Module) or not hasattr(model, "features"):
        raise BlaError(f"architecture: build() of own/{name} must return a torch module with `features`")
    return Network([model])


def _torchvision(name: str, image_size: tuple[int, int], classes: int | None) -> Network:
    from torchvision import models  # type: ignore[import-untyped]

    if name not in models.list_models(module=models):
        near = _did_you_mean(name, models.list_models(module=models))
        raise BlaError(f"architecture: torchvision has no classifier {name}{near}")
    try:
        model = models.get_model(name, weights=None, num_classes=classes or 1000)
        body, tail = split(model.eval(), image_size)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise BlaError(f"architecture: torchvision/{name} cannot be split ({error}); name another") from error
    return SplitNetwork([body, tail] if classes else [body], model)


POOLING = ("pool", "mean", "flatten")
"""Operations that pool a map; parts of the names of modules and functions."""
NO_MAP = (*POOLING, "dropout", "identity")
"""Operations whose result does not count as a new feature map."""


def split(model: nn.Module, image_size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Split a model in evaluation mode at its last feature map, into the part before it and the part after it.

    The map is the last value `[B, C, h, w]` with more than one cell that is not the result of pooling, is pooled later,
    and is the only input of everything after it. Raises BlaError if there is none, as in a vision transformer.
    """
    image = torch.zeros(1, 3, *image_size)
    with torch.no_grad():
        model(image)  # raises the model's own short error; ShapeProp's is a page long
    tracer = fx.Tracer()
    tracer.proxy_buffer_attributes = True  # otherwise MaxViT's buffers become constants under names that no file has
    traced = fx.GraphModule(model, tracer.trace(model))
    ShapeProp(traced).propagate(image)
    nodes = list(traced.graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    candidate = cut = None
    reach = 0  # the last node that uses an earlier value
    for number, node in enumerate(nodes):
        shape: tuple[int, ...] = getattr(node.meta.get("tensor_meta"), "shape", ())
        operation = _operation(traced, node)
        if any(word in operation for word in POOLING):
            cut = candidate
        is_map = len(shape) == 4 and shape[2] * shape[3] > 1 and node.op != "placeholder"
        if candidate is not None and reach <= number and len(shape) == 4 and not is_map:
            break  # only one cell is left
        if is_map and reach <= number and not any(word in operation for word in NO_MAP):
            candidate = number
        if node.op not in ("get_attr", "output"):
            reach = max([reach, *(place[user] for user in node.users)])
    if cut is None:
        raise no_map(None)
    return _part(traced, nodes[: cut + 1], None), _part(traced, nodes[cut + 1 :], nodes[cut])


def _operation(traced: fx.GraphModule, node: fx.Node) -> str:
    """The name of a node's operation, in lower case."""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))).__name__.lower()
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", "")).lower()


def _part(traced: fx.GraphModule, nodes: Sequence[fx.Node], given: fx.Node | None) -> nn.Module:
    """Some nodes of a model as a model of their own; `given` is the node whose value is its input."""
    graph, copies = fx.Graph(), {}
    if given is not None:
        copies[given] = graph.placeholder("features")
    for node in nodes:
        if node.op != "output":
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    last = nodes[-1].args[0] if nodes[-1].op == "output" else nodes[-1]
    graph.output(copies[last])  # type: ignore[index]
    return fx.GraphModule(traced, graph)


def no_map(features: Tensor | None) -> BlaError:
    """The error of a network whose features are not a map."""
    shape = "it has no feature map" if features is None else f"its features have shape {list(features.shape)}"
    return BlaError(
        f"{shape}, not [images, channels, height, width]: "
        "bounded logit attention needs a backbone with a spatial feature map, such as an EfficientNet or ResNet"
    )


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 3)
    return f" (did you mean {', '.join(near)}?)" if near else ""
