"""The synthetic sets of Chen et al. 2018: 10 normal features, of which the first few decide the class.

    x, probability, relevant = generate("xor", 1000, torch.Generator().manual_seed(0))

- `orange_skin`: logit of class 1 = x1² + x2² + x3² + x4² - 4;
- `xor`: x1 x2;
- `additive`: -100 sin(0.2 x1) + |x2| + x3 + exp(-x4) - 2.4;
- `switch`: x10 is normal around 3 or -3, equally often; around 3 the class is that of `orange_skin`, around -3 that of
  `additive` on x5 to x8. x10 is relevant too.

Constants are those of Chen et al.'s code. There, in the additive half of `switch`, x1 to x4 are copies of x5 to x8,
because of an assignment between views; here they are independent.

Source: Chen et al. 2018, section 4.1, and their code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, selu

FEATURES = 10


class Samples(NamedTuple):
    """N samples: features `[N, 10]`, probability of class 1 `[N]`, and which features are relevant, bool `[N, 10]`."""

    x: Tensor
    probability: Tensor
    relevant: Tensor


def orange_skin(x: Tensor) -> Tensor:
    """The logit `[...]` of class 1 for features `[..., 10]`."""
    return x[..., :4].square().sum(dim=-1) - 4


def xor(x: Tensor) -> Tensor:
    """The logit `[...]` of class 1 for features `[..., 10]`."""
    return x[..., 0] * x[..., 1]


def additive(x: Tensor) -> Tensor:
    """The logit `[...]` of class 1 for features `[..., 10]`."""
    return -100 * torch.sin(0.2 * x[..., 0]) + x[..., 1].abs() + x[..., 2] + torch.exp(-x[..., 3]) - 2.4


@dataclass(frozen=True)
class SyntheticSet:
    """Number of relevant features of each sample, and the activation of Chen et al.'s networks."""

    k: int
    activation: Callable[[Tensor], Tensor]


SETS = {
    "orange_skin": SyntheticSet(4, relu),
    "xor": SyntheticSet(2, relu),
    "additive": SyntheticSet(4, selu),
    "switch": SyntheticSet(5, selu),
}
LOGITS = {"orange_skin": orange_skin, "xor": xor, "additive": additive}


def generate(name: str, count: int, generator: torch.Generator) -> Samples:
    """Random samples of a set; `probability` is the model that selection explains."""
    x, relevant = torch.randn(count, FEATURES, generator=generator), torch.zeros(count, FEATURES, dtype=torch.bool)
    if name != "switch":
        relevant[:, : SETS[name].k] = True
        return Samples(x, LOGITS[name](x).sigmoid(), relevant)
    positive = torch.rand(count, generator=generator) < 0.5
    x[:, -1] += torch.where(positive, 3.0, -3.0)
    relevant[:, :4], relevant[:, 4:8], relevant[:, -1] = positive[:, None], ~positive[:, None], True
    return Samples(x, torch.where(positive, orange_skin(x), additive(x[:, 4:])).sigmoid(), relevant)
