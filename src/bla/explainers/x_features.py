"""The sparse reconstruction autoencoder of XNN for one class: its objective, its training, and the number of x-features.

An encoder turns pooled features z `[C]` into a few x-features x >= 0 `[X]`; a linear head predicts the class's logit,
y = w.x + b, and a decoder reconstructs z. Trained on

    mean (y - logit)^2 + reconstruction R + pull_away P + weight_decay / 2 sum (weights^2)

R = mean over the C features of log(1 + q mean over images (error^2)), which saturates where z cannot be reconstructed;
P = the mean squared cosine between the contributions w_k x_k of two x-features over the images of a batch
(`x_features`), or between the contributions of two images (`images`).

Source: Qi, Khorram and Li 2017 (arXiv 1709.05360), and the code that they released. Ours: logits and features are
standardised, units start with mean 0 and variance 1, a dead x-feature takes no part in P, training stops by a rule.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from torch.nn.functional import linear

from bla.base.errors import BlaError
from bla.base.specs import FORBID_EXTRA, Count, Epochs, LearningRate
from bla.explainers.interface import State
from bla.method.finite import refuse_not_finite
from bla.runtime.adam import Adam
from bla.runtime.seeds import derive_seed

WIDTHS = (128, 64)
"""Units of the encoder's two hidden layers, and of the decoder's in reverse order (authors: 800 and 100)."""
SHARPNESS = 100.0
"""q of the log penalty (authors' code)."""
DROPOUT = 0.02
"""After the first layer of the encoder (authors' code)."""
HELD_OUT = 5
"""One training image in this many is held out: it decides when training stops and how many x-features there are."""
GAIN, PATIENCE = 0.005, 3
"""Training has converged once R² on held-out images has not grown by `GAIN` in `PATIENCE` epochs."""
LOSS = 0.01
"""How much of R² on held-out images may be lost by leaving x-features out."""

Layers = list[tuple[Tensor, Tensor]]
Weight = Annotated[float, Ge(ge=0), Lt(lt=1e6)]


@dataclass(frozen=True, kw_only=True)
class XNNSettings:
    """Weights of the terms of the objective, and training; on painted birds by held-out training images.

    The first `runs` are fitted, with at most `x_features` a class. The authors' weights are for logits that are not
    standardised.
    """

    __pydantic_config__: ClassVar = FORBID_EXTRA

    runs: Count = 2
    x_features: Annotated[int, Ge(ge=1), Le(le=100)] = 5
    reconstruction: Weight = 0.1
    pull_away: Weight = 0.1
    pull_away_between: Literal["x_features", "images"] = "x_features"
    weight_decay: Weight = 0.02
    learning_rate: LearningRate = 0.003
    batch_size: Count = 100
    epochs: Epochs = 40


def log_penalty(errors: Tensor) -> Tensor:
    """R of reconstruction errors `[B, C]`."""
    result: Tensor = (SHARPNESS * errors.square().mean(dim=0)).log1p().mean()
    return result


def pull_away(vectors: Tensor) -> Tensor:
    """The mean squared cosine between two of the vectors `[M, D]`; zero vectors do not count, and 0 without two others."""
    norms = vectors.norm(dim=1, keepdim=True)
    units = vectors / torch.where(norms > 0, norms, 1)
    others = 1 - torch.eye(len(vectors), device=vectors.device)
    live = (norms > 0).sum()
    result: Tensor = ((units @ units.T).square() * others).sum() / (live * (live - 1)).clamp(min=1)
    return result


def r_squared(predicted: Tensor, logits: Tensor) -> Tensor:
    """The share of the variance of the logits `[N, ...]` that the prediction explains; 0 for the best constant."""
    return 1 - (predicted - logits).square().mean(dim=0) / logits.var(dim=0, unbiased=False).clamp(min=1e-12)


def encode(layers: Layers, features: Tensor) -> list[Tensor]:
    """The outputs of all layers, each with a ReLU, for features `[B, C]`; the last one is the x-features `[B, X]`."""
    outputs = []
    for weight, bias in layers:
        features = linear(features, weight, bias).relu()
        outputs.append(features)
    return outputs


def grad_cams(layers: Layers, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The x-features `[B, X]` of feature maps `[B, C, h, w]`, and the Grad-CAM `[B, X, h, w]` of each.

    The gradient of an x-feature with respect to a cell is that to the pooled features divided by the number of cells.
    """
    *hidden, x = encode(layers, maps.mean(dim=(2, 3)))
    slopes = (x > 0).to(x).diag_embed() @ layers[-1][0]
    for (weight, _), output in zip(reversed(layers[:-1]), reversed(hidden), strict=True):
        slopes = (slopes * (output > 0)[:, None]) @ weight
    return x, torch.einsum("bxc,bchw->bxhw", slopes, maps).relu() / maps.shape[-2:].numel()


def chosen(contributions: Tensor, logits: Tensor, bias: Tensor) -> Tensor:
    """The x-features that the prediction needs, as numbers, the one with the largest spread first.

    `contributions` `[N, X]` and `logits` `[N]` are of held-out images. As few as possible, at least one, so that R² is at
    most `LOSS` below that of all when the others are replaced by their means.
    """
    order = contributions.std(dim=0, unbiased=False).argsort(descending=True, stable=True)
    means = contributions.mean(dim=0)
    partial = (contributions - means)[:, order].cumsum(dim=1) + means.sum() + bias  # [N, X], of the first 1, 2, ...
    reached = r_squared(partial, logits[:, None])
    return order[: int((reached < reached[-1] - LOSS).sum()) + 1]


class Autoencoder:
    """Encoder, decoder and head of one class while they train, on standardised features and logits."""

    def __init__(self, features: Tensor, logits: Tensor, x_features: int, generator: torch.Generator) -> None:
        widths = [features.shape[1], *WIDTHS, x_features]
        self.mean, self.deviation = features.mean(dim=0), features.std(dim=0).clamp(min=1e-3)
        self.logit_mean, self.logit_deviation = logits.mean(), logits.std().clamp(min=1e-6)
        values, self.encoder = (features - self.mean) / self.deviation, Layers()
        for outputs in widths[1:]:
            values = _add_layer(self.encoder, values, outputs, generator).relu()
        design = torch.cat([values, torch.ones_like(values[:, :1])], dim=1).double().cpu()
        solution = torch.linalg.lstsq(design, self.standardised(logits).double().cpu()[:, None]).solution[:, 0]
        self.weight, self.bias = solution[:-1].to(values), solution[-1].to(values)
        self.decoder = Layers()
        for outputs in reversed(widths[1:-1]):
            values = _add_layer(self.decoder, values, outputs, generator).relu()
        # The decoder starts at the mean features.
        self.decoder.append((features.new_zeros(widths[0], WIDTHS[0]), self.mean.clone()))
        for tensor in self.parameters():
            tensor.requires_grad_()

    def parameters(self) -> list[Tensor]:
        """All tensors that train."""
        return [*(tensor for layer in (*self.encoder, *self.decoder) for tensor in layer), self.weight, self.bias]

    def standardised(self, logits: Tensor) -> Tensor:
        """Logits with mean 0 and variance 1 over the training images."""
        return (logits - self.logit_mean) / self.logit_deviation

    def objective(self, features: Tensor, logits: Tensor, settings: XNNSettings, generator: torch.Generator) -> Tensor:
        """The objective of a batch of features `[B, C]` and logits `[B]`, with dropout."""
        first = encode(self.encoder[:1], (features - self.mean) / self.deviation)[0]
        kept = torch.rand(first.shape, generator=generator, device=first.device) >= DROPOUT
        x = encode(self.encoder[1:], first * kept / (1 - DROPOUT))[-1]
        error = linear(encode(self.decoder[:-1], x)[-1], *self.decoder[-1]) - features
        contributions = x * self.weight
        prediction = (contributions.sum(dim=1) + self.bias - self.standardised(logits)).square().mean()
        between = contributions.T if settings.pull_away_between == "x_features" else contributions
        reconstruction, away = settings.reconstruction * log_penalty(error), settings.pull_away * pull_away(between)
        weights = [weight for weight, _ in (*self.encoder, *self.decoder)]
        decay = torch.stack([weight.square().sum() for weight in weights]).sum() / 2
        total: Tensor = prediction + reconstruction + away + settings.weight_decay * decay
        return total

    @torch.no_grad()
    def folded(self) -> tuple[Layers, Tensor, Tensor]:
        """Encoder, and weight and bias of the head, for features and logits that are not standardised."""
        (weight, bias), *others = self.encoder
        first = weight / self.deviation
        head = self.weight * self.logit_deviation, self.bias * self.logit_deviation + self.logit_mean
        return [(first, bias - first @ self.mean), *others], *head


def _add_layer(layers: Layers, values: Tensor, outputs: int, generator: torch.Generator) -> Tensor:
    """Append a random layer whose outputs have mean 0 and variance 1 for these values `[N, inputs]`; the outputs."""
    weight = torch.randn(outputs, values.shape[1], generator=generator, device=values.device)
    weight = weight / (values @ weight.T).std(dim=0).clamp(min=1e-6)[:, None]
    outcome = values @ weight.T
    layers.append((weight, -outcome.mean(dim=0)))
    return outcome - outcome.mean(dim=0)


def fit_class(features: Tensor, logits: Tensor, settings: XNNSettings, seed: int, first_draw: int) -> State:
    """Train the autoencoder of one class on D draws of pooled features `[D, N, C]` and the class's logits `[D, N]`.

    Epoch e trains on draw (first_draw + e) mod D. Once converged (`PATIENCE`) training goes on at a tenth of the learning
    rate, and the second time it ends, at the best epoch. The state: weights and biases of the encoder and head, of
    features and logits as given; `head.weight` is 0 for x-features that the prediction does not need (`chosen`). `r_squared`
    is that of held-out images; `converged` is 0 or 1; `epochs` a number. Raises BlaError if there are fewer than 10 images,
    or if features, logits or the prediction are not finite.
    """
    (draws, images, _), device = features.shape, features.device
    if images < 10:
        raise BlaError(f"{images} training images are too few: XNN needs 10, to hold some out")
    refuse_not_finite(features, "training images")
    if not logits.isfinite().all():
        raise BlaError("the logits of the training images are not finite, so XNN cannot be fitted to them")
    order = torch.randperm(images, generator=torch.Generator().manual_seed(derive_seed(seed, "held out"))).to(device)
    held_out, rows = order[: images // HELD_OUT], order[images // HELD_OUT :]
    generator = torch.Generator(device).manual_seed(derive_seed(seed, "training"))
    model = Autoencoder(features[0, rows], logits[0, rows], settings.x_features, generator)
    parameters = model.parameters()
    adam = Adam(parameters, settings.learning_rate, 1e-8)
    best, saved, waited, converged, epoch = -torch.inf, list[Tensor](), 0, 0, 0
    while converged < 2 and epoch < settings.epochs:
        draw = (first_draw + epoch) % draws
        shuffled = rows[torch.randperm(len(rows), generator=generator, device=device)]
        for batch in shuffled.split(settings.batch_size):
            adam.minimise(model.objective(features[draw, batch], logits[draw, batch], settings, generator))
        epoch, waited = epoch + 1, waited + 1
        contributions, bias = _predicted(model, features[0, held_out])
        reached = r_squared(contributions.sum(dim=1) + bias, logits[0, held_out])
        if not torch.isfinite(reached):
            raise BlaError(f"the prediction is not finite in epoch {epoch}; lower learning_rate")
        if reached > best + GAIN:
            best, saved, waited = float(reached), [tensor.detach().clone() for tensor in parameters], 0
        if waited == PATIENCE:
            waited, converged = 0, converged + 1
            adam.learning_rate /= 10
            _restore(parameters, saved)
    _restore(parameters, saved)
    return _state(model, features[0, held_out], logits[0, held_out]) | {
        "converged": torch.tensor(float(converged == 2)), "epochs": torch.tensor(float(epoch))
    }  # fmt: skip


@torch.no_grad()
def _predicted(model: Autoencoder, features: Tensor) -> tuple[Tensor, Tensor]:
    """The contributions `[N, X]` of the x-features to the logit, and the bias that is added to their sum."""
    encoder, weight, bias = model.folded()
    return encode(encoder, features)[-1] * weight, bias


@torch.no_grad()
def _restore(parameters: list[Tensor], saved: list[Tensor]) -> None:
    for tensor, value in zip(parameters, saved, strict=True):
        tensor.copy_(value)


@torch.no_grad()
def _state(model: Autoencoder, features: Tensor, logits: Tensor) -> State:
    """The state of a trained model, with the x-features that the prediction needs on held-out images."""
    (encoder, weight, bias), (contributions, _) = model.folded(), _predicted(model, features)
    needed = chosen(contributions, logits, bias)
    left_out = torch.ones_like(weight).index_fill(0, needed, 0)
    bias = bias + (contributions.mean(dim=0) * left_out).sum()
    weight = weight * (1 - left_out)
    predicted = encode(encoder, features)[-1] @ weight + bias
    layers = {f"encoder.{i}.{name}": t for i, layer in enumerate(encoder) for name, t in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip
    head = {"head.weight": weight, "head.bias": bias, "r_squared": r_squared(predicted, logits)}
    return {name: value.detach().cpu() for name, value in (layers | head).items()}
