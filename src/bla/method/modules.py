"""Heads and explanation modules of many runs, and their results: every tensor has a leading run dimension R."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

CHECKPOINT_HEAD = "checkpoint_head."
"""Before the names of a trained head that lies in a file of a backbone's weights; the backbone is loaded without it."""
EVALUATION_CHUNK = 512
"""Images per batch in evaluation: it bounds memory, and affects results only by rounding."""


@dataclass(frozen=True)
class Head:
    """R linear classifiers: `weight` `[R, K, C]`, `bias` `[R, K]`."""

    weight: Tensor
    bias: Tensor

    def to(self, device: torch.device) -> "Head":
        """The same heads on a device."""
        return Head(self.weight.to(device), self.bias.to(device))

    def __call__(self, pooled: Tensor) -> Tensor:
        """Class logits `[R, B, K]` of pooled features `[R, B, C]`."""
        return torch.einsum("rbc,rkc->rbk", pooled, self.weight) + self.bias[:, None]


@dataclass(frozen=True)
class Concept:
    """R dense layers from all cells of an image to its concept vector g: `weight` W `[R, C, n * C]`, `bias` `[R, C]`."""

    weight: Tensor
    bias: Tensor
    rectified: bool

    def __call__(self, features: Tensor, u: Tensor) -> Tensor:
        """u.g `[R, B, 1]` of features `[R, B, n, C]` or `[B, n, C]`, and u `[R, C]`."""
        image, u = features.flatten(-2), u[..., None]
        if self.rectified:
            return (image @ self.weight.mT + self.bias[:, None]).relu() @ u
        return image @ (self.weight.mT @ u) + self.bias[:, None] @ u  # not u.(W f), which takes C times as long


@dataclass(frozen=True)
class Module:
    """R explanation modules, each a 1x1 convolution to one score per cell: `weight` u `[R, C]`, `bias` `[R]`.

    A concept vector g adds u.g to the scores of all cells, because u.(g + f_i) = u.f_i + u.g.
    """

    weight: Tensor
    bias: Tensor
    concept: Concept | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """Scores `[R, B, n]` of each run's features `[R, B, n, C]`, or of the same features `[B, n, C]` for every run."""
        if features.ndim == 3:
            scores = torch.einsum("bnc,rc->rbn", features, self.weight) + self.bias[:, None, None]
        else:
            scores = torch.matmul(features, self.weight[:, None, :, None])[..., 0] + self.bias[:, None, None]
        if self.concept is None:
            return scores
        return scores + self.concept(features, self.weight)

    def to(self, device: torch.device) -> "Module":
        """The same modules on a device."""
        return self.moved(lambda t: t.to(device))

    def run(self, number: int) -> "Module":
        """The module of one run, R = 1."""
        return self.moved(lambda t: t[number : number + 1])

    def parameters(self) -> list[Tensor]:
        """All trainable tensors."""
        return [self.weight, self.bias, *([self.concept.weight, self.concept.bias] if self.concept else [])]

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Module":
        """The same modules with every tensor passed through `move`."""
        old = self.concept
        concept = Concept(move(old.weight), move(old.bias), old.rectified) if old else None
        return Module(move(self.weight), move(self.bias), concept)


@dataclass(frozen=True)
class Trained:
    """R trained runs: heads, modules (None without explanations), and training losses `[R, epochs]`."""

    head: Head
    module: Module | None
    losses: Tensor

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, for a file; each has the leading dimension R."""
        state = {"head.weight": self.head.weight, "head.bias": self.head.bias, "losses": self.losses}
        if self.module is None:
            return state
        state |= {"module.weight": self.module.weight, "module.bias": self.module.bias}
        concept = self.module.concept
        return state | ({"concept.weight": concept.weight, "concept.bias": concept.bias} if concept else {})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], rectified: bool = False) -> "Trained":
        """The inverse of `state`; `rectified` is from the settings of the concept vector."""
        module = concept = None
        if "concept.weight" in state:
            concept = Concept(state["concept.weight"], state["concept.bias"], rectified)
        if "module.weight" in state:
            module = Module(state["module.weight"], state["module.bias"], concept)
        return cls(Head(state["head.weight"], state["head.bias"]), module, state["losses"])


@dataclass(frozen=True)
class Explanations:
    """The explanations of R runs for N images, and the results with soft explanations.

    `logits`, `soft` (the pooling weights of training) and `hard` (bool) are `[R, N, n]`; `correct` bool and `loss`
    (cross-entropy in nats) are `[R, N]`, with soft explanations.
    """

    logits: Tensor
    soft: Tensor
    hard: Tensor
    correct: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Evaluation:
    """The results of R runs on N images with hard explanations, or with none: `correct` bool and `loss` `[R, N]`."""

    correct: Tensor
    loss: Tensor
    explained: Explanations | None = None


def pooled(features: Tensor) -> Tensor:
    """Average-pool half-precision features `[..., n, C]` to single-precision `[..., 1, C]`, summing in single precision.

    Equal to weighing every cell by 1/n; one cell instead of n trains BL and BL+ n times faster.
    """
    flat = features.flatten(0, -3)
    result = torch.empty(len(flat), features.shape[-1], device=features.device)
    # Allocated first, because small results between large parts would fragment memory.
    for part, target in zip(flat.split(128), result.split(128), strict=True):
        torch.mean(part.float(), dim=1, out=target)
    return result.view(*features.shape[:-2], 1, features.shape[-1])
