"""BL as a classifier of one's own: one head that nobody trains here, and no BL+.

(trained, result), (no_runs, no_results) = own_columns(head, test_set, device)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bla.base.specs import NoExplanation
from bla.method.evaluation import evaluate
from bla.method.modules import EVALUATION_CHUNK, Evaluation, Head, Trained, pooled

FEWEST = 5
"""Test images that a class needs before its predictions say anything about the order of outputs."""


def own_columns(
    head: Head, test_set: tuple[Tensor, Tensor], device: torch.device
) -> tuple[tuple[Trained, Evaluation], tuple[Trained, Evaluation]]:
    """BL, the head (R = 1) as it is, and BL+, which has no runs; `test_set` is features `[N, n, C]` and labels."""
    trained = Trained(head, None, torch.zeros(1, 0))
    result = evaluate(*test_set, NoExplanation(explanation="none"), trained, [], device)
    nothing = Trained(Head(head.weight[:0], head.bias[:0]), None, torch.zeros(0, 0))
    return (trained, result), (nothing, Evaluation(result.correct[:0], result.loss[:0]))


@torch.no_grad()
def exchanged(head: Head, test_set: tuple[Tensor, Tensor], classes: Sequence[str]) -> list[tuple[str, str]]:
    """The classes most of whose images are predicted as another class, if these classes only change places; else empty.

    Labels that are multi-hot say nothing about this.
    """
    features, labels = test_set
    if labels.ndim > 1:
        return []
    parts = (head(pooled(part)[None, :, 0])[0] for part in features.split(EVALUATION_CHUNK))
    predicted = torch.cat(list(parts)).argmax(dim=1)
    moved: dict[int, int] = {}
    for label in range(len(classes)):
        of_class = predicted[labels == label]
        output = int(of_class.bincount(minlength=len(classes)).argmax()) if len(of_class) else label
        if output != label and len(of_class) >= FEWEST and (of_class == output).float().mean() > 0.5:
            moved[label] = output
    return [(classes[x], classes[y]) for x, y in moved.items()] if set(moved) == set(moved.values()) else []
