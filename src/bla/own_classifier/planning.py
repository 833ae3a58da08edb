"""How long each method will take here: forward passes, counted without the backbone, times the seconds of one pass.

Methods that search stop when there is nothing to gain, which only the backbone can tell: for them it is what they took
on painted birds, with default settings.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bla.networks.patches import batch_size_for
from bla.own_classifier.explaining import MethodInput, as_method, name_of, passes
from bla.own_classifier.wrap import OwnClassifier

SEARCHING = {"i_gos": 1316, "i_gos_pp": 5190, "sag": 199}
"""Forward passes an image, and twice the backward passes, in reports/tables/faithfulness.csv (painted_birds), with default
settings; a step or two differ from processor to processor."""


@dataclass(frozen=True)
class Plan:
    """A method's forward passes for an image, gradients counting as two, and the estimated seconds for an image."""

    method: str
    passes: int
    seconds: float


def plan(own: OwnClassifier, methods: Sequence[MethodInput]) -> list[Plan]:
    """The cost of each method for one image, measured on this machine: the backbone in full batches, the rest as it is."""
    chosen = [as_method(method) for method in methods]
    seconds = _seconds_a_pass(own)
    plans = []
    for method in chosen:
        start = time.perf_counter()
        count = SEARCHING.get(name_of(method)) or passes(own, method)
        plans.append(Plan(name_of(method), count, count * seconds + time.perf_counter() - start))
    return plans


@torch.no_grad()
def _seconds_a_pass(own: OwnClassifier) -> float:
    """Seconds of one image through the backbone, in a batch, the faster of two."""
    device, size = own.classifier.device, own.preparation.size
    batch = torch.zeros(batch_size_for(device, size), *size, 3, dtype=torch.uint8, device=device)
    durations = []
    for _ in range(3):  # the first one warms up
        start = time.perf_counter()
        own.classifier.features(batch).sum().item()
        durations.append(time.perf_counter() - start)
    return min(durations[1:]) / len(batch)
